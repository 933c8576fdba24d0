"""`camcli train tscam` and `camcli train gap`: fit a head to a network that lacks one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option, Typer

from camcli.cli.options import (
    Checkpoint,
    Device,
    LabelFile,
    Size,
    Workers,
    choose_worker_count,
    parse_input_size,
)
from camcli.cli.runners.train import run_training
from camcli.core.errors import UsageError
from camcli.training.config import TSCAM_CUB_RECIPE, ModelChoice, Recipe, TrainingConfig
from camcli.training.data.samples import TrainingPaths

app = Typer(help="Fit a head on photographs: TS-CAM's to a ViT, or CAM's to a CNN.")

DataPath = Annotated[
    Path,
    Argument(
        metavar="DATA",
        help="A folder with one folder for each class, CUB_200_2011, or ImageNet lists."
        " With --teacher: any photographs.",
    ),
]
Teacher = Annotated[
    str | None,
    Option(metavar="MODEL", help="Learn the answers of this classifier. Needs no labels."),
]
TeacherCheckpoint = Annotated[
    Path | None, Option(metavar="FILE", help="Weights for --teacher, if it is a name.")
]
ImageFolder = Annotated[
    Path | None, Option(metavar="DIR", help="The folder of the images, if it is not in DATA.")
]
BoxTable = Annotated[
    Path | None,
    Option(metavar="CSV", help="Boxes to validate with. GT-known then chooses the best head."),
]
ValidationShare = Annotated[
    float,
    Option(
        "--validation",
        min=0.001,
        max=0.9,
        help="Share of the photographs to validate with, if DATA has no such part.",
    ),
]
BatchSize = Annotated[int, Option(min=1, max=2**16, help="Photographs at a time.")]
TrainPrecision = Annotated[
    Literal["fp32", "bf16"], Option(help="bf16 is faster on hardware that supports it.")
]
TrainSeed = Annotated[int, Option(min=0, max=2**32 - 1, help="The same seed gives the same head.")]
OutputFolder = Annotated[
    Path, Option(metavar="DIR", help="The folder for checkpoints and the log.")
]
TrainOverwrite = Annotated[
    bool, Option("--overwrite", help="Replace an earlier training in the same folder.")
]


@app.callback()
def train() -> None:
    """Fit a head on photographs: TS-CAM's to a ViT, or CAM's to a CNN."""


@app.command()
def tscam(
    data: DataPath,
    model: Annotated[
        str | None,
        Option(metavar="NAME", help="Any timm ViT with a CLS token. Default: vit_lite0."),
    ] = None,
    checkpoint: Checkpoint = None,
    teacher: Teacher = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    part: Annotated[
        str,
        Option("--train", metavar="PART", help="head, last:N (the last N blocks), or all."),
    ] = "all",
    images: ImageFolder = None,
    boxes: BoxTable = None,
    labels: LabelFile = None,
    validation: ValidationShare = 0.1,
    epochs: Annotated[int, Option(min=1, help="For last:N and all.")] = TSCAM_CUB_RECIPE.epochs,
    batch_size: BatchSize = TSCAM_CUB_RECIPE.batch_size,
    lr: Annotated[
        float,
        Option(
            min=1e-9, help="Learning rate for last:N and all; a tenth after half of the epochs."
        ),
    ] = TSCAM_CUB_RECIPE.lr,
    decay: Annotated[
        float | None,
        Option(min=0, help="Weight decay. Default: 5e-4; for a head, the best of four."),
    ] = None,
    size: Size = None,
    precision: TrainPrecision = "fp32",
    seed: TrainSeed = TSCAM_CUB_RECIPE.seed,
    device: Device = "auto",
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    resume: Annotated[bool, Option("--resume", help="Continue an interrupted training.")] = False,
    overwrite: TrainOverwrite = False,
) -> int:
    """TS-CAM: a 3x3 convolution over a ViT's patch tokens. Defaults: its authors' for CUB."""
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        decay=decay,
        precision=precision,
        seed=seed,
        workers=workers or choose_worker_count(),
        last=_parse_last_blocks(part),
        head_only=part == "head",
    )
    config = TrainingConfig(
        head_kind="tscam",
        model=ModelChoice(model if model or checkpoint else "vit_lite0", checkpoint),
        teacher=_choose_teacher(teacher, teacher_checkpoint),
        data=TrainingPaths(data, images, boxes, skip_folder=output, validation_share=validation),
        labels=labels,
        size=parse_input_size(size),
        device=device,
        output=output,
        recipe=recipe,
    )
    return run_training(config, resume=resume, overwrite=overwrite)


@app.command()
def gap(
    data: DataPath,
    model: Annotated[
        str | None, Option(metavar="NAME", help="Any timm CNN. Default: the built-in one.")
    ] = None,
    checkpoint: Checkpoint = None,
    teacher: Teacher = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    images: ImageFolder = None,
    boxes: BoxTable = None,
    labels: LabelFile = None,
    validation: ValidationShare = 0.1,
    batch_size: BatchSize = 32,
    decay: Annotated[
        float | None, Option(min=0, help="Weight decay. Default: the best of four.")
    ] = None,
    size: Size = None,
    precision: TrainPrecision = "fp32",
    device: Device = "auto",
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    overwrite: TrainOverwrite = False,
) -> int:
    """CAM: global average pooling and a linear classifier on the last map of a frozen CNN."""
    recipe = Recipe(
        epochs=1,
        batch_size=batch_size,
        decay=decay,
        precision=precision,
        workers=workers or choose_worker_count(),
        head_only=True,
    )
    config = TrainingConfig(
        head_kind="gap",
        model=ModelChoice(model, checkpoint),
        teacher=_choose_teacher(teacher, teacher_checkpoint),
        data=TrainingPaths(data, images, boxes, skip_folder=output, validation_share=validation),
        labels=labels,
        size=parse_input_size(size),
        device=device,
        output=output,
        recipe=recipe,
    )
    return run_training(config, resume=False, overwrite=overwrite)


def _choose_teacher(name: str | None, checkpoint: Path | None) -> ModelChoice | None:
    return ModelChoice(name, checkpoint) if name or checkpoint else None


def _parse_last_blocks(part: str) -> int | None:
    """The number of blocks in `--train last:N`; None for head and all."""
    found = re.fullmatch(r"last:(\d{1,4})", part)
    if found:
        return int(found[1])
    if part not in ("head", "all"):
        raise UsageError(f"--train {part}: write head, last:N or all")
    return None
