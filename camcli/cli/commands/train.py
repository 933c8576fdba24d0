"""`camcli train tscam|gap`: train a head that makes maps."""

from __future__ import annotations

import re
from pathlib import Path

from typer import Typer

from camcli.cli.declarations import (
    Checkpoint,
    Device,
    OutputFolder,
    Size,
    Workers,
)
from camcli.cli.options import (
    choose_worker_count,
    parse_input_size,
)
from camcli.cli.train_declarations import (
    BoxTable,
    DataPath,
    Epochs,
    GapDecay,
    ImageFolder,
    LearningRate,
    ModelOption,
    Teacher,
    TeacherCheckpoint,
    TrainBatchSize,
    TrainedPart,
    TrainLabels,
    TrainOverwrite,
    TrainPrecision,
    TrainResume,
    TrainSeed,
    TscamDecay,
    ValidationShare,
)
from camcli.core.errors import UsageError
from camcli.training.config import TSCAM_CUB_RECIPE, Recipe

app = Typer(help="Train a head that makes maps: TS-CAM for a ViT, CAM for a CNN.")


@app.callback()
def train() -> None:
    """Train a head that makes maps: TS-CAM for a ViT, CAM for a CNN."""


@app.command()
def tscam(
    data: DataPath,
    model: ModelOption = None,
    checkpoint: Checkpoint = None,
    teacher: Teacher = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    part: TrainedPart = "all",
    images: ImageFolder = None,
    boxes: BoxTable = None,
    labels: TrainLabels = None,
    validation: ValidationShare = 0.1,
    epochs: Epochs = TSCAM_CUB_RECIPE.epochs,
    batch_size: TrainBatchSize = TSCAM_CUB_RECIPE.batch_size,
    lr: LearningRate = TSCAM_CUB_RECIPE.lr,
    decay: TscamDecay = None,
    size: Size = None,
    precision: TrainPrecision = "fp32",
    seed: TrainSeed = TSCAM_CUB_RECIPE.seed,
    device: Device = "auto",
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    resume: TrainResume = False,
    overwrite: TrainOverwrite = False,
) -> int:
    """Train a TS-CAM head for a ViT: a 3x3 convolution over its patch tokens.

    The defaults are the authors' settings for CUB-200-2011.
    """
    threads, last = workers or choose_worker_count(), _parse_last_blocks(part)
    from camcli.cli.runners.train import TrainArgs, run_training

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
    model: ModelOption = None,
    checkpoint: Checkpoint = None,
    teacher: Teacher = None,
    teacher_checkpoint: TeacherCheckpoint = None,
    images: ImageFolder = None,
    boxes: BoxTable = None,
    labels: TrainLabels = None,
    validation: ValidationShare = 0.1,
    batch_size: TrainBatchSize = 32,
    decay: GapDecay = None,
    size: Size = None,
    precision: TrainPrecision = "fp32",
    device: Device = "auto",
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    overwrite: TrainOverwrite = False,
) -> int:
    """Train a CAM head for a frozen CNN: global average pooling and a linear classifier."""
    threads = workers or choose_worker_count()
    from camcli.cli.runners.train import TrainArgs, run_training

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
