"""What `camcli train` does with what it was asked: load, fit, tell, write."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camcli.cli.console import print_error, print_info, show_progress
from camcli.cli.options import check_file_exists, check_no_existing_run, check_path_exists
from camcli.core.errors import UsageError, to_one_line
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.io.labels import load_labels
from camcli.training.config import (
    BEST_CHECKPOINT,
    CURVE_FILE,
    LOG_FILE,
    TRAINING_FILE_NAMES,
    Recipe,
)
from camcli.training.data.samples import TrainingData
from camcli.training.data.splits import load_training_data

if TYPE_CHECKING:
    from camcli.models.model import Model
    from camcli.training.checkpointing import TrainingWriter
    from camcli.training.finetune import TrainingState
    from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask

MAX_LEFT_OUT_PRINTED = 3  # photographs left out that are told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainArgs:
    """A training as the command line has it; `part` of the network is trained."""

    kind: Literal["tscam", "gap"]
    data: Path
    model: str | None
    checkpoint: Path | None
    teacher: str | None
    teacher_checkpoint: Path | None
    images: Path | None
    boxes: Path | None
    labels: Path | None
    share: float
    size: tuple[int, int] | None
    recipe: Recipe
    device: str
    output: Path
    part: str = "head"
    resume: bool = False
    overwrite: bool = False

    @property
    def is_head_only(self) -> bool:
        """Whether the head alone is fitted."""
        return self.part == "head"

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what comes of it, as text; a training is resumed with the same."""
        told = ("device", "output", "resume", "overwrite", "recipe")
        own = {k: _to_json_value(v) for k, v in asdict(self).items() if k not in told}
        numbers = {k: _to_json_value(v) for k, v in asdict(self.recipe).items() if k != "workers"}
        return own | numbers


def _to_json_value(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)


def run_training(args: TrainArgs) -> int:
    """Train, telling each epoch; the exit status."""
    _check_args(args)
    names = load_labels(args.labels, None) if args.labels else None
    load_data = partial(
        load_training_data,
        DatasetPaths(args.data, images=args.images, skip_folder=args.output),
        names,
        box_file=args.boxes,
        validation_share=args.share,
    )
    labelled = None if args.teacher else load_data()

    from camcli.models.model import load_model

    teacher = None
    if args.teacher:
        teacher = load_model(args.teacher, args.teacher_checkpoint, device=args.device)
    found = labelled or load_data(teacher.labels if teacher else None)
    _print_data_summary(found)
    lesson = _create_task(args, found, teacher)

    from camcli.training.checkpointing import create_training_writer

    _run_epochs(args, create_training_writer(lesson, args.output, args.settings))
    _print_written_files(args)
    return 0


def _create_task(args: TrainArgs, data: TrainingData, teacher: Model | None) -> TrainingTask:
    """The network with its new head, and what it is to learn."""
    import torch

    from camcli.models.model import load_model
    from camcli.models.zoo.replace_head import HEAD_ATTACHERS
    from camcli.training.soft_labels import create_one_hot_labeler, create_teacher_labeler
    from camcli.training.task import TrainingTask
    from camcli.training.validation import check_explainable

    model = load_model(args.model, args.checkpoint, size=args.size, device=args.device)
    torch.manual_seed(args.recipe.seed)
    classes = len(data.labels.names)
    network = HEAD_ATTACHERS[args.kind](model.network, classes, model.input_size, model.name)
    check_explainable(network, args.kind, model)
    says = (
        create_teacher_labeler(teacher, model.transform)
        if teacher
        else create_one_hot_labeler(classes)
    )
    return TrainingTask(
        *(args.kind, model.architecture, network.to(model.device), model.transform, data, says),
        *(model.device, args.recipe),
    )


def _check_args(args: TrainArgs) -> None:
    check_file_exists("--checkpoint", args.checkpoint)
    check_file_exists("--teacher-checkpoint", args.teacher_checkpoint)
    check_file_exists("--labels", args.labels)
    check_file_exists("--boxes", args.boxes)
    check_path_exists("--images", args.images)
    if args.teacher_checkpoint and not args.teacher:
        raise UsageError("--teacher-checkpoint has weights for --teacher, which is not named")
    if args.teacher and args.labels:
        raise UsageError("--labels and --teacher both name the classes; give one of them")
    for option, number in (("--lr", args.recipe.lr), ("--decay", args.recipe.decay)):
        if not math.isfinite(number or 0):
            raise UsageError(f"{option} {number}: write a number")
    if args.resume and (args.is_head_only or args.overwrite):
        why = "a head is fitted in one go" if args.is_head_only else "--overwrite starts over"
        raise UsageError(f"--resume has nothing to go on from: {why}")
    _check_output_folder(args)


def _check_output_folder(args: TrainArgs) -> None:
    """Neither an earlier training nor what is read is written over."""
    inputs = (args.model, args.checkpoint, args.teacher, args.teacher_checkpoint)
    read = {os.path.realpath(path) for path in inputs if path and os.path.isfile(path)}
    for name in TRAINING_FILE_NAMES:
        if os.path.realpath(args.output / name) in read:
            raise UsageError(f"{args.output / name} is read; name another --output")
        if not args.resume:
            check_no_existing_run(args.output, args.overwrite, name)


def _print_data_summary(data: TrainingData) -> None:
    """What was found, and what was left out."""
    for item in data.left_out[:MAX_LEFT_OUT_PRINTED]:
        print_error(item)
    more = len(data.left_out) - MAX_LEFT_OUT_PRINTED
    if more > 0:
        print_error(f"… and {more} more left out")
    boxed = len({item.annotation.image_name for item in data.localization_samples})
    print_info(
        f"{data.kind}: {len(data.labels.names)} classes, {len(data.train)} photographs to train "
        f"on, {len(data.validation)} to validate with"
        + (f", {boxed} of them with boxes" if boxed else "")
    )


def _run_epochs(args: TrainArgs, writer: TrainingWriter) -> None:
    """Epoch after epoch, or fit after fit: shown, written, told."""
    lesson, state = writer.task, None
    if args.resume:
        from camcli.training.checkpointing import load_resume_state

        state = load_resume_state(writer)
        print_info(f"going on after epoch {state.epoch} of {args.recipe.epochs}")
    else:
        writer.remove_old_files()
        part = "the head" if args.is_head_only else args.part
        print_info(f"training {part} of {lesson.architecture} on {lesson.device}")
    once = len(lesson.data.train) + len(lesson.data.validation)
    rounds = 1 if args.is_head_only else args.recipe.epochs - len(writer.epochs)
    with show_progress("training", once * rounds, quiet=False) as bar:
        for epoch, left in _iter_epochs(args, lesson, state, bar.advance):
            for failed in epoch.failed:
                print_error(f"{failed}; left out")
            better = writer.write_epoch(epoch, left)
            print_info(_format_epoch(epoch) + ("  best" if better else ""))


def _iter_epochs(
    args: TrainArgs, task: TrainingTask, state: TrainingState | None, advance: AdvanceCallback
) -> Iterator[tuple[EpochResult, TrainingState | None]]:
    from camcli.training.finetune import train_epochs
    from camcli.training.linear_head import fit_linear_head

    if args.is_head_only:
        yield from ((epoch, None) for epoch in fit_linear_head(task, advance))
    else:
        yield from train_epochs(task, advance, state)


def _format_epoch(epoch: EpochResult) -> str:
    """An epoch in a line."""
    named = f"decay {epoch.decay:g}" if epoch.decay is not None else f"epoch {epoch.number}"
    judged = epoch.judged
    parts = [f"{named:10}", f"loss {epoch.loss:.4f}"]
    if judged.top1 is not None:
        parts.append(f"validation {judged.loss:.4f}, top-1 {judged.top1:.3f}")
    if judged.gt_known is not None:
        parts.append(f"GT-known {judged.gt_known:.3f} at {judged.threshold:.3f}")
    return "  ".join([*parts, f"{epoch.seconds:.1f} s"])


def _print_written_files(args: TrainArgs) -> None:
    from camcli.training.validation import METHOD_BY_HEAD

    method = METHOD_BY_HEAD[args.kind]
    folder = to_one_line(args.output)
    print_info(
        f"written to {folder}/: {BEST_CHECKPOINT}, {CURVE_FILE}, {LOG_FILE}; look at it: "
        f"camcli explain IMAGE --model {folder}/{BEST_CHECKPOINT} --method {method}"
    )
