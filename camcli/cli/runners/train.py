"""What `camcli train` does with what it was asked: load, fit, tell, write."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camcli.cli import console, options
from camcli.core.errors import UsageError, one_line
from camcli.io import labels as naming
from camcli.training.config import (
    BEST_CHECKPOINT,
    CURVE_FILE,
    LOG_FILE,
    TRAINING_FILE_NAMES,
    Recipe,
)
from camcli.training.data import splits as dataset
from camcli.training.data.samples import TrainingData, TrainingPaths

if TYPE_CHECKING:
    from camcli.models.model import Model
    from camcli.training.checkpointing import TrainingWriter
    from camcli.training.finetune import TrainingState
    from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask

TOLD = 3  # photographs left out that are told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
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
    def alone(self) -> bool:
        """Whether the head alone is fitted."""
        return self.part == "head"

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides what comes of it, as text; a training is resumed with the same."""
        told = ("device", "output", "resume", "overwrite", "recipe")
        own = {k: _text(v) for k, v in asdict(self).items() if k not in told}
        numbers = {k: _text(v) for k, v in asdict(self.recipe).items() if k != "workers"}
        return own | numbers


def _text(value: object) -> object:
    return value if isinstance(value, int | float | str | None) else str(value)


def run(asked: Asked) -> int:
    """Train, telling each epoch; the exit status."""
    _check(asked)
    names = naming.load_labels(asked.labels, None) if asked.labels else None
    where = TrainingPaths(asked.data, asked.images, asked.boxes, asked.output, asked.share)
    labelled = None if asked.teacher else dataset.load_training_data(where, names)

    from camcli.models import model as models

    teacher = None
    if asked.teacher:
        teacher = models.load_model(asked.teacher, asked.teacher_checkpoint, device=asked.device)
    found = labelled or dataset.load_training_data(
        where, names, teacher.labels if teacher else None
    )
    _tell(found)
    lesson = _lesson(asked, found, teacher)

    from camcli.training.checkpointing import create_training_writer

    _follow(asked, create_training_writer(lesson, asked.output, asked.settings))
    _close(asked)
    return 0


def _lesson(asked: Asked, found: TrainingData, teacher: Model | None) -> TrainingTask:
    """The network with its new head, and what it is to learn."""
    import torch

    from camcli.models import model as models
    from camcli.models.zoo import replace_head as refit
    from camcli.training import soft_labels as answers
    from camcli.training import validation as judge
    from camcli.training.task import TrainingTask

    model = models.load_model(asked.model, asked.checkpoint, size=asked.size, device=asked.device)
    torch.manual_seed(asked.recipe.seed)
    classes = len(found.labels.names)
    network = refit.HEAD_ATTACHERS[asked.kind](model.network, classes, model.input_size, model.name)
    judge.check_explainable(network, asked.kind, model)
    says = (
        answers.create_teacher_labeler(teacher, model.transform)
        if teacher
        else answers.create_one_hot_labeler(classes)
    )
    return TrainingTask(
        *(asked.kind, model.architecture, network.to(model.device), model.transform, found, says),
        *(model.device, asked.recipe),
    )


def _check(asked: Asked) -> None:
    options.must_exist("--checkpoint", asked.checkpoint)
    options.must_exist("--teacher-checkpoint", asked.teacher_checkpoint)
    options.must_exist("--labels", asked.labels)
    options.must_exist("--boxes", asked.boxes)
    options.must_be_there("--images", asked.images)
    if asked.teacher_checkpoint and not asked.teacher:
        raise UsageError("--teacher-checkpoint has weights for --teacher, which is not named")
    if asked.teacher and asked.labels:
        raise UsageError("--labels and --teacher both name the classes; give one of them")
    for option, number in (("--lr", asked.recipe.lr), ("--decay", asked.recipe.decay)):
        if not math.isfinite(number or 0):
            raise UsageError(f"{option} {number}: write a number")
    if asked.resume and (asked.alone or asked.overwrite):
        why = "a head is fitted in one go" if asked.alone else "--overwrite starts over"
        raise UsageError(f"--resume has nothing to go on from: {why}")
    _protect(asked)


def _protect(asked: Asked) -> None:
    """Neither an earlier training nor what is read is written over."""
    inputs = (asked.model, asked.checkpoint, asked.teacher, asked.teacher_checkpoint)
    read = {os.path.realpath(path) for path in inputs if path and os.path.isfile(path)}
    for name in TRAINING_FILE_NAMES:
        if os.path.realpath(asked.output / name) in read:
            raise UsageError(f"{asked.output / name} is read; name another --output")
        if not asked.resume:
            options.refuse_existing_run(asked.output, asked.overwrite, name)


def _tell(found: TrainingData) -> None:
    """What was found, and what was left out."""
    for item in found.left_out[:TOLD]:
        console.complain(item)
    more = len(found.left_out) - TOLD
    if more > 0:
        console.complain(f"… and {more} more left out")
    boxed = len({item.annotation.image_name for item in found.localization_samples})
    console.say(
        f"{found.kind}: {len(found.labels.names)} classes, {len(found.train)} photographs to train "
        f"on, {len(found.validation)} to validate with"
        + (f", {boxed} of them with boxes" if boxed else "")
    )


def _follow(asked: Asked, record: TrainingWriter) -> None:
    """Epoch after epoch, or fit after fit: shown, written, told."""
    lesson, state = record.task, None
    if asked.resume:
        from camcli.training.checkpointing import load_resume_state

        state = load_resume_state(record)
        console.say(f"going on after epoch {state.epoch} of {asked.recipe.epochs}")
    else:
        record.remove_old_files()
        part = "the head" if asked.alone else asked.part
        console.say(f"training {part} of {lesson.architecture} on {lesson.device}")
    once = len(lesson.data.train) + len(lesson.data.validation)
    rounds = 1 if asked.alone else asked.recipe.epochs - len(record.epochs)
    with console.progress("training", once * rounds, quiet=False) as bar:
        for epoch, left in _steps(asked, lesson, state, bar.advance):
            for failed in epoch.failed:
                console.complain(f"{failed}; left out")
            better = record.write_epoch(epoch, left)
            console.say(_said(epoch) + ("  best" if better else ""))


def _steps(
    asked: Asked, lesson: TrainingTask, state: TrainingState | None, advance: AdvanceCallback
) -> Iterator[tuple[EpochResult, TrainingState | None]]:
    from camcli.training import finetune as epochs
    from camcli.training import linear_head as head

    if asked.alone:
        yield from ((epoch, None) for epoch in head.fit_linear_head(lesson, advance))
    else:
        yield from epochs.train_epochs(lesson, advance, state)


def _said(epoch: EpochResult) -> str:
    """An epoch in a line."""
    named = f"decay {epoch.decay:g}" if epoch.decay is not None else f"epoch {epoch.number}"
    judged = epoch.judged
    parts = [f"{named:10}", f"loss {epoch.loss:.4f}"]
    if judged.top1 is not None:
        parts.append(f"validation {judged.loss:.4f}, top-1 {judged.top1:.3f}")
    if judged.gt_known is not None:
        parts.append(f"GT-known {judged.gt_known:.3f} at {judged.threshold:.3f}")
    return "  ".join([*parts, f"{epoch.seconds:.1f} s"])


def _close(asked: Asked) -> None:
    from camcli.training.validation import METHOD_BY_HEAD

    method = METHOD_BY_HEAD[asked.kind]
    folder = one_line(asked.output)
    console.say(
        f"written to {folder}/: {BEST_CHECKPOINT}, {CURVE_FILE}, {LOG_FILE}; look at it: "
        f"camcli explain IMAGE --model {folder}/{BEST_CHECKPOINT} --method {method}"
    )
