"""`camcli train tscam|gap`: a head for a network that has none to explain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option, Typer

from camcli.cli.declarations import (
    Checkpoint,
    Device,
    LabelFile,
    Size,
    Workers,
)
from camcli.cli.options import (
    choose_worker_count,
    parse_input_size,
)
from camcli.cli.runners.train import TrainArgs, run_training
from camcli.core.errors import UsageError
from camcli.training.config import TSCAM_CUB_RECIPE, Recipe

app = Typer(help="Fit a head on photographs: TS-CAM's for a ViT, or CAM's for a CNN.")

DataPath = Annotated[
    Path,
    Argument(
        metavar="DATA",
        help="A folder by class, CUB_200_2011, ImageNet lists, or with --teacher any photos.",
    ),
]
Teacher = Annotated[
    str | None,
    Option(metavar="MODEL", help="Learn what this classifier says; photos need no labels."),
]
TeacherCheckpoint = Annotated[
    Path | None, Option(metavar="FILE", help="Weights for --teacher, if it is a name.")
]
ImageFolder = Annotated[
    Path | None, Option(metavar="DIR", help="Where the images are, if not in DATA.")
]
BoxTable = Annotated[
    Path | None,
    Option(metavar="CSV", help="Boxes to validate with: they choose the best by GT-known."),
]
ValidationShare = Annotated[
    float,
    Option("--validation", min=0.001, max=0.9, help="Share kept, if DATA has no part for it."),
]
TrainPrecision = Annotated[
    Literal["fp32", "bf16"], Option(help="bf16: faster where the hardware has it.")
]
TrainSeed = Annotated[int, Option(min=0, max=2**32 - 1, help="The same seed gives the same head.")]
OutputFolder = Annotated[Path, Option(metavar="DIR", help="Where checkpoints and log go.")]
TrainOverwrite = Annotated[bool, Option("--overwrite", help="Start over where a training exists.")]


@app.callback()
def train() -> None:
    """Fit a head on photographs: TS-CAM's for a ViT, or CAM's for a CNN."""


@app.command()
def tscam(
    data: DataPath,
    model: Annotated[
        str | None, Option(metavar="NAME", help="Any timm ViT with a CLS token; else vit_lite0.")
    ] = None,
    checkpoint: Checkpoint = None,
    teacher: Teacher = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    part: Annotated[
        str, Option("--train", metavar="PART", help="head, last:N (blocks), or all.")
    ] = "all",
    images: ImageFolder = None,
    boxes: BoxTable = None,
    labels: LabelFile = None,
    validation: ValidationShare = 0.1,
    epochs: Annotated[int, Option(min=1, help="Of last:N and all.")] = TSCAM_CUB_RECIPE.epochs,
    batch_size: Annotated[
        int, Option(min=1, max=2**16, help="Photographs at a time.")
    ] = TSCAM_CUB_RECIPE.batch_size,
    lr: Annotated[
        float, Option(min=1e-9, help="Of last:N and all; a tenth from half of the epochs on.")
    ] = TSCAM_CUB_RECIPE.lr,
    decay: Annotated[
        float | None, Option(min=0, help="Weight decay; else 5e-4, and a head's best of four.")
    ] = None,
    size: Size = None,
    precision: TrainPrecision = "fp32",
    seed: TrainSeed = TSCAM_CUB_RECIPE.seed,
    device: Device = "auto",
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    resume: Annotated[bool, Option("--resume", help="Go on where it was interrupted.")] = False,
    overwrite: TrainOverwrite = False,
) -> int:
    """TS-CAM: a 3x3 convolution over a ViT's patch tokens. Defaults are its authors' for CUB."""
    threads, last = workers or choose_worker_count(), _parse_last_blocks(part)
    return run_training(
        TrainArgs(
            kind="tscam",
            data=data,
            model=model if model or checkpoint else "vit_lite0",
            checkpoint=checkpoint,
            teacher=teacher,
            teacher_checkpoint=teacher_checkpoint,
            part=part,
            images=images,
            boxes=boxes,
            labels=labels,
            share=validation,
            size=parse_input_size(size),
            recipe=Recipe(epochs, batch_size, lr, decay, precision, seed, threads, last),
            device=device,
            output=output,
            resume=resume,
            overwrite=overwrite,
        )
    )


@app.command()
def gap(
    data: DataPath,
    model: Annotated[
        str | None, Option(metavar="NAME", help="Any timm CNN; else the embedded one.")
    ] = None,
    checkpoint: Checkpoint = None,
    teacher: Teacher = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    images: ImageFolder = None,
    boxes: BoxTable = None,
    labels: LabelFile = None,
    validation: ValidationShare = 0.1,
    batch_size: Annotated[int, Option(min=1, max=2**16, help="Photographs at a time.")] = 32,
    decay: Annotated[float | None, Option(min=0, help="Weight decay; else the best of four.")] = (
        None
    ),
    size: Size = None,
    precision: TrainPrecision = "fp32",
    device: Device = "auto",
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    overwrite: TrainOverwrite = False,
) -> int:
    """CAM: global average pooling and a linear classifier on a CNN's last map, CNN frozen."""
    threads = workers or choose_worker_count()
    return run_training(
        TrainArgs(
            kind="gap",
            data=data,
            model=model,
            checkpoint=checkpoint,
            teacher=teacher,
            teacher_checkpoint=teacher_checkpoint,
            images=images,
            boxes=boxes,
            labels=labels,
            share=validation,
            size=parse_input_size(size),
            recipe=Recipe(1, batch_size, decay=decay, precision=precision, workers=threads),
            device=device,
            output=output,
            overwrite=overwrite,
        )
    )


def _parse_last_blocks(part: str) -> int | None:
    """The blocks that `--train last:N` names."""
    found = re.fullmatch(r"last:(\d{1,4})", part)
    if found:
        return int(found[1])
    if part not in ("head", "all"):
        raise UsageError(f"--train {part}: write head, last:N or all")
    return None
