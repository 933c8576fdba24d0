"""Run `camcli train`: check the options, start the training, print its progress."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from camcli.cli.console import print_error, print_info, show_progress
from camcli.cli.options import check_file_exists, check_no_existing_run, check_path_exists
from camcli.core.errors import UsageError, to_one_line
from camcli.io.labels import Labels, load_labels
from camcli.models.zoo.model_files import check_model_file
from camcli.training.data.splits import load_training_data
from camcli.training.data.training_samples import TrainingData
from camcli.training.training_config import (
    BEST_CHECKPOINT,
    CURVE_FILE,
    LOG_FILE,
    TRAINING_FILE_NAMES,
    ModelChoice,
    TrainingConfig,
)

if TYPE_CHECKING:
    from camcli.models.model import Model
    from camcli.training.session import TrainingSession
    from camcli.training.task import EpochResult

MAX_LEFT_OUT_PRINTED = 3  # lines about photographs that are left out


def run_training(config: TrainingConfig, *, resume: bool, overwrite: bool) -> int:
    """Train, with a line for every epoch; returns the exit status."""
    _check_options(config, resume=resume, overwrite=overwrite)
    _check_output_folder(config, resume=resume, overwrite=overwrite)
    data, teacher = _load_data_and_teacher(config)
    _print_data_summary(data)

    from camcli.training.session import start_training

    session = start_training(config, data, teacher, resume=resume)
    _print_start(session)
    with show_progress("training", session.image_count, quiet=False) as bar:
        for epoch, is_best in session.run(bar.advance):
            for failure in epoch.failed:
                print_error(f"{failure}; the training continues without it")
            print_info(_format_epoch(epoch) + ("  best" if is_best else ""))
    _print_written_files(config)
    return 0


def _check_options(config: TrainingConfig, *, resume: bool, overwrite: bool) -> None:
    teacher = config.teacher or ModelChoice()
    check_model_file(config.model.name)
    check_model_file(teacher.name, "--teacher")
    check_file_exists("--checkpoint", config.model.checkpoint)
    check_file_exists("--teacher-checkpoint", teacher.checkpoint)
    check_file_exists("--labels", config.labels)
    check_file_exists("--boxes", config.boxes)
    check_path_exists("--images", config.data.images)
    if teacher.checkpoint and not teacher.name:
        raise UsageError("--teacher-checkpoint works only with --teacher; add --teacher NAME")
    if config.teacher and config.labels:
        raise UsageError("--labels and --teacher cannot be combined: both name the classes")
    _check_finite("--lr", config.recipe.lr)
    _check_finite("--decay", config.recipe.decay)
    if resume:
        _check_resume(config, overwrite=overwrite)


def _check_finite(option: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{option} {value}: write a number")


def _check_resume(config: TrainingConfig, *, overwrite: bool) -> None:
    if config.recipe.head_only:
        raise UsageError("--resume: the training of a head alone cannot be resumed; omit --resume")
    if overwrite:
        raise UsageError("--resume and --overwrite cannot be combined")


def _check_output_folder(config: TrainingConfig, *, resume: bool, overwrite: bool) -> None:
    """Raise UsageError if the training would overwrite its inputs or an earlier training."""
    choices = (config.model, config.teacher or ModelChoice())
    inputs = [path for choice in choices for path in (choice.name, choice.checkpoint) if path]
    input_files = {os.path.realpath(path) for path in inputs if os.path.isfile(path)}
    for name in TRAINING_FILE_NAMES:
        if os.path.realpath(config.output / name) in input_files:
            raise UsageError(
                f"this training reads {config.output / name}, so it cannot write there; "
                "choose another --output"
            )
        if not resume:
            check_no_existing_run(config.output, overwrite, name)


def _load_data_and_teacher(config: TrainingConfig) -> tuple[TrainingData, Model | None]:
    """Load both; without a teacher torch is not imported, so errors in the data show at once."""
    labels = load_labels(config.labels, None) if config.labels else None
    if config.teacher is None:
        return _load_data(config, labels), None

    from camcli.models.model import load_model

    teacher = load_model(config.teacher.name, config.teacher.checkpoint, device=config.device)
    return _load_data(config, labels, teacher.labels), teacher


def _load_data(
    config: TrainingConfig, labels: Labels | None, teacher_labels: Labels | None = None
) -> TrainingData:
    return load_training_data(
        config.data,
        labels,
        teacher_labels,
        box_file=config.boxes,
        validation_share=config.validation_share,
    )


def _print_data_summary(data: TrainingData) -> None:
    for item in data.left_out[:MAX_LEFT_OUT_PRINTED]:
        print_error(item)
    more = len(data.left_out) - MAX_LEFT_OUT_PRINTED
    if more > 0:
        print_error(f"… camcli leaves out {more} more")
    boxed = len({sample.annotation.image_name for sample in data.localization_samples})
    print_info(
        f"{data.kind}: {len(data.labels.names)} classes, {len(data.train)} photographs for "
        f"training, {len(data.validation)} for validation"
        + (f", {boxed} of them with boxes" if boxed else "")
    )


def _print_start(session: TrainingSession) -> None:
    task, recipe = session.task, session.task.recipe
    if session.state is not None:
        print_info(f"resuming after epoch {session.state.epoch} of {recipe.epochs}")
        return
    part = "the head" if recipe.head_only else recipe.part
    print_info(f"training {part} of {task.architecture} on {task.device}")


def _format_epoch(epoch: EpochResult) -> str:
    """Format an epoch as one line."""
    name = f"decay {epoch.decay:g}" if epoch.decay is not None else f"epoch {epoch.number}"
    scores = epoch.scores
    parts = [f"{name:10}", f"loss {epoch.loss:.4f}"]
    if scores.top1 is not None:
        parts.append(f"validation {scores.loss:.4f}, top-1 {scores.top1:.3f}")
    if scores.gt_known is not None:
        parts.append(f"GT-known {scores.gt_known:.3f} at {scores.threshold:.3f}")
    return "  ".join([*parts, f"{epoch.seconds:.1f} s"])


def _print_written_files(config: TrainingConfig) -> None:
    from camcli.training.validation import METHOD_BY_HEAD

    method = METHOD_BY_HEAD[config.head_kind]
    folder = to_one_line(config.output)
    print_info(
        f"written to {folder}/: {BEST_CHECKPOINT}, {CURVE_FILE}, {LOG_FILE}; try it with: "
        f"camcli explain IMAGE --model {folder}/{BEST_CHECKPOINT} --method {method}"
    )
