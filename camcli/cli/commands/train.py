"""`camcli train tscam` and `camcli train gap`: fit a head to a network that lacks one."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Typer

from camcli.cli.declarations import (
    Checkpoint,
    Device,
    Size,
    Workers,
)
from camcli.cli.options import (
    choose_worker_count,
    parse_input_size,
)
from camcli.cli.output_folder import (
    choose_output_folder,
    declare_output_folder,
    open_output_folder,
)
from camcli.cli.strict_command import CommandGroup, StrictCommand
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
from camcli.io.run_folders import TRAIN_FOLDER
from camcli.training.training_config import TSCAM_CUB_RECIPE, ModelChoice, Recipe, TrainingConfig

app = Typer(cls=CommandGroup, help="Train a head that makes maps: TS-CAM for a ViT, CAM for a CNN.")


@app.callback()
def train() -> None:
    """Train a head that makes maps: TS-CAM for a ViT, CAM for a CNN."""


@app.command(cls=StrictCommand)
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
    output: Annotated[
        Path | None, declare_output_folder(TRAIN_FOLDER, "--resume or --overwrite")
    ] = None,
    resume: TrainResume = False,
    overwrite: TrainOverwrite = False,
) -> int:
    """Train a TS-CAM head for a ViT: a 3x3 convolution over its patch tokens.

    The defaults are the authors' settings for CUB-200-2011.
    """
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
    size_pixels = parse_input_size(size)
    folder = choose_output_folder(output, TRAIN_FOLDER, continues=resume or overwrite)

    from camcli.cli.runners.run_train import run_training
    from camcli.evaluation.datasets.reader import DatasetPaths

    config = TrainingConfig(
        head_kind="tscam",
        model=ModelChoice(model if model or checkpoint else "vit_lite0", checkpoint),
        teacher=_choose_teacher(teacher, teacher_checkpoint),
        data=DatasetPaths(data, images=images, skip_folder=folder or Path(os.devnull)),
        boxes=boxes,
        validation_share=validation,
        labels=labels,
        size=size_pixels,
        device=device,
        output=folder or Path(TRAIN_FOLDER),
        recipe=recipe,
    )
    with open_output_folder(folder, TRAIN_FOLDER) as own_folder:
        return run_training(replace(config, output=own_folder), resume=resume, overwrite=overwrite)


@app.command(cls=StrictCommand)
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
    output: Annotated[Path | None, declare_output_folder(TRAIN_FOLDER)] = None,
    overwrite: TrainOverwrite = False,
) -> int:
    """Train a CAM head for a frozen CNN: global average pooling and a linear classifier."""
    recipe = Recipe(
        epochs=1,
        batch_size=batch_size,
        decay=decay,
        precision=precision,
        workers=workers or choose_worker_count(),
        head_only=True,
    )
    size_pixels = parse_input_size(size)
    folder = choose_output_folder(output, TRAIN_FOLDER, continues=overwrite)

    from camcli.cli.runners.run_train import run_training
    from camcli.evaluation.datasets.reader import DatasetPaths

    config = TrainingConfig(
        head_kind="gap",
        model=ModelChoice(model, checkpoint),
        teacher=_choose_teacher(teacher, teacher_checkpoint),
        data=DatasetPaths(data, images=images, skip_folder=folder or Path(os.devnull)),
        boxes=boxes,
        validation_share=validation,
        labels=labels,
        size=size_pixels,
        device=device,
        output=folder or Path(TRAIN_FOLDER),
        recipe=recipe,
    )
    with open_output_folder(folder, TRAIN_FOLDER) as own_folder:
        return run_training(replace(config, output=own_folder), resume=False, overwrite=overwrite)


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
