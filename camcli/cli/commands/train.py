"""`camcli train tscam|gap`: train a head that makes maps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from camcli.cli.declarations import (
    Checkpoint,
    Device,
    OutputFolder,
    Size,
    Workers,
)
from camcli.cli.options import (
    check_file_exists,
    check_no_existing_run,
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
from camcli.io.discovery import find_image_sources
from camcli.training.config import LOG_FILE, TSCAM_CUB_RECIPE, Recipe

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


@app.command()
def embedded(
    photos: Annotated[
        list[str], Argument(metavar="PHOTOS...", help="Files, folders, globs; labels are not used.")
    ],
    vit: Annotated[
        str | None, Option(metavar="NAME", help="A ViT to ask besides, where the objects are.")
    ] = None,
    checkpoint: Annotated[Path | None, Option(metavar="FILE", help="Weights for --vit.")] = None,
    boxes: Annotated[
        Path | None, Option(metavar="CSV", help="Boxes by which the threshold is chosen.")
    ] = None,
    steps: Annotated[int, Option(min=1, help="Of gradient descent.")] = 2580,
    batch_size: Annotated[int, Option(min=2, max=2**16, help="Views at a time.")] = 64,
    lr: Annotated[float, Option(min=1e-9, help="At its highest.")] = 1.5e-3,
    seed: Annotated[
        int, Option(min=0, max=2**32 - 1, help="The same seed gives the same weights.")
    ] = 0,
    workers: Workers = None,
    output: OutputFolder = Path("camcli-train"),
    overwrite: TrainOverwrite = False,
) -> int:
    """The embedded ViT anew: a transformer on the embedded CNN, taught by it. See its card."""
    check_file_exists("--checkpoint", checkpoint)
    check_file_exists("--boxes", boxes)
    check_no_existing_run(output, overwrite, LOG_FILE)
    found = find_image_sources(photos, [], skip_folder=output)

    from camcli.cli.runners.distill import run_distillation
    from camcli.training.distillation.loop import DistillationConfig

    how = DistillationConfig(
        steps, batch_size, lr, seed=seed, workers=workers or choose_worker_count()
    )
    return run_distillation(found, vit, checkpoint, boxes, how, output)
