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
    Block,
    Boxes,
    Checkpoint,
    Device,
    FitName,
    FormatName,
    FusionName,
    HeadName,
    Interpolation,
    LabelFile,
    Mean,
    ModelName,
    OutputFolder,
    Overwrite,
    Seed,
    Settings,
    Size,
    Smooth,
    Std,
    Threshold,
    Workers,
)
from camcli.io.writers import describe_writers


@dataclass(frozen=True, slots=True)
class ModelArguments:
    """Which network to load, as typed."""

    model: ModelName = None
    checkpoint: Checkpoint = None
    labels: LabelFile = None
    head: HeadName = None


@dataclass(frozen=True, slots=True)
class InputArguments:
    """How images become inputs of the network, as typed."""

    fit: FitName = "squash"
    size: Size = None
    mean: Mean = None
    std: Std = None
    interpolation: Interpolation = None


@dataclass(frozen=True, slots=True)
class MethodArguments:
    """How camcli applies every method, as typed; each command declares its own `--method`."""

    block: Block = None
    fusion: FusionName = None
    set_: Settings = None
    smooth: Smooth = "none"
    seed: Seed = 0


@dataclass(frozen=True, slots=True)
class ExplainOutputArguments:
    """Which files to write and where, as typed."""

    output: OutputFolder = Path("camcli-out")
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
            help=f"Write these files. {describe_writers()}; sheet: all on one.",
            rich_help_panel=OUTPUT,
        ),
    ] = "overlay,boxes"
    image_format: Annotated[
        Literal["jpg", "png", "webp"],
        Option(help="Save overlays and grids in this format.", rich_help_panel=OUTPUT),
    ] = "jpg"
    threshold: Threshold = None
    boxes: Boxes = "largest"
    colormap: Annotated[
        str,
        Option(
            metavar="NAME",
            help="Colour heatmaps with this matplotlib colormap.",
            rich_help_panel=OUTPUT,
        ),
    ] = "jet"
    alpha: Annotated[
        float,
        Option(
            metavar="A",
            min=0,
            max=1,
            help="Draw the heatmap over the image with this opacity.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0.5
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

    output: OutputFolder = Path("camcli-compare")
    overwrite: Overwrite = False
    threshold: Threshold = None
    format_: FormatName = "auto"
