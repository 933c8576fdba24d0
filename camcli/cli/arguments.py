"""Groups of options that commands share, with their values as typed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from camcli.cli.declarations import (
    NO_TYPE,
    OUTPUT,
    SPEED,
    BatchSize,
    Boxes,
    Checkpoint,
    Device,
    DrawnBoxes,
    FitName,
    FormatName,
    HeadName,
    Interpolation,
    LabelFile,
    LogitsName,
    MaxPixels,
    Mean,
    ModelName,
    Overwrite,
    PictureBands,
    Size,
    Std,
    Threshold,
    Workers,
)
from camcli.cli.method_declarations import (
    BlockSpecs,
    FusionName,
    Refine,
    Seed,
    Settings,
    Smooth,
)
from camcli.cli.output_folder import declare_output_folder
from camcli.cli.picture_arguments import Caption, Scale
from camcli.core.types import DEFAULT_MAX_PIXELS
from camcli.io.run_folders import COMPARE_FOLDER, EXPLAIN_FOLDER
from camcli.io.writers import describe_writers


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """Which network to load, as typed."""

    model: ModelName = None
    checkpoint: Checkpoint = None
    labels: LabelFile = None
    head: HeadName = None
    logits: LogitsName = None


@dataclass(frozen=True, slots=True)
class InputArguments:
    """How images become inputs of the network, as typed."""

    fit: FitName = "squash"
    size: Size = None
    mean: Mean = None
    std: Std = None
    interpolation: Interpolation = None
    rgb: PictureBands = None
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True)
class MethodArguments:
    """How camcli applies every method, as typed; each command declares its own `--method`."""

    block: BlockSpecs = None
    fusion: FusionName = None
    set_: Settings = None
    smooth: Smooth = "none"
    refine: Refine = "none"
    seed: Seed = 0


@dataclass(frozen=True, slots=True)
class ExplainOutputArguments:
    """Which files to write and where, as typed."""

    output: Annotated[
        Path | None, declare_output_folder(EXPLAIN_FOLDER, "--resume or --overwrite")
    ] = None
    overwrite: Overwrite = False
    resume: Annotated[
        bool,
        Option(
            "--resume",
            metavar=NO_TYPE,
            help="Continue an earlier run in the output folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    on_error: Annotated[
        Literal["continue", "stop"],
        Option(
            help="Continue with the other images, or stop, when one fails.",
            rich_help_panel=OUTPUT,
        ),
    ] = "continue"
    save: Annotated[
        str,
        Option(
            metavar="LIST",
            help=f"Write these files. {describe_writers()}; sheet: the first images on one sheet.",
            rich_help_panel=OUTPUT,
        ),
    ] = "overlay,boxes"
    report: Annotated[
        bool,
        Option(
            "--report",
            metavar=NO_TYPE,
            help="At the end write report.html, one page of all results; saves maps for it.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    threshold: Threshold = None
    boxes: Boxes = "largest"
    box_format: Annotated[
        str,
        Option(
            metavar="NAME",
            help="When the run ends, also export its boxes as coco, voc, yolo or label-studio, as"
            " camcli export does; json: no export.",
            rich_help_panel=OUTPUT,
        ),
    ] = "json"
    caption: Caption = "below"
    scale: Scale = "image"
    show: Annotated[
        bool,
        Option(
            "--show",
            metavar=NO_TYPE,
            help="Also draw each overlay in the terminal.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    format_: FormatName = "auto"


@dataclass(frozen=True, slots=True)
class ExplainSpeedArguments:
    """Options that change only the speed of a run, as typed."""

    batch_size: BatchSize = None
    device: Device = "auto"
    workers: Workers = None
    precision: Annotated[
        Literal["fp32", "bf16", "auto"],
        Option(
            help="Run the network in this precision; auto: bf16 where it is faster and the maps"
            " stay the same.",
            rich_help_panel=SPEED,
        ),
    ] = "fp32"
    compile_: Annotated[
        bool,
        Option(
            "--compile",
            metavar=NO_TYPE,
            help="Compile the network with torch.compile: it starts slowly, then runs faster.",
            rich_help_panel=SPEED,
        ),
    ] = False


@dataclass(frozen=True, slots=True)
class CompareOutputArguments:
    """Which files to write and where, as typed."""

    output: Annotated[Path | None, declare_output_folder(COMPARE_FOLDER)] = None
    overwrite: Overwrite = False
    threshold: Threshold = None
    boxes: DrawnBoxes = "none"
    format_: FormatName = "auto"
