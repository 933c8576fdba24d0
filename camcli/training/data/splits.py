"""Load training data: read a data set, split it, and check that a network can learn from it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from camcli.core.errors import UsageError, to_one_line
from camcli.evaluation.datasets.annotations import hash_image_name, iter_valid_annotations
from camcli.evaluation.datasets.boxes_csv import read_boxes_csv
from camcli.evaluation.datasets.evaluation_samples import create_evaluation_samples
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import Dataset
from camcli.io.labels import Labels
from camcli.training.data.readers import read_training_data
from camcli.training.data.training_samples import TrainingData, TrainingSample, format_few_names


def load_training_data(
    paths: DatasetPaths,
    labels: Labels | None = None,
    teacher_labels: Labels | None = None,
    *,
    box_file: Path | None = None,
    validation_share: float = 0.1,
) -> TrainingData:
    """Read a data set, and split it into images to train and to validate with.

    Labels are `labels`, or those of the data set. With `teacher_labels` the images need no labels.
    The images of `box_file` (a boxes.csv) join the validation images. A data set without a
    validation split gives `validation_share` of each class. Raises UsageError if there is nothing
    to learn: no image, fewer than two classes, or a class without images.
    """
    if not os.path.exists(paths.root):
        raise UsageError(f"{paths.root}: no such folder")
    found = read_training_data(paths, needs_labels=teacher_labels is None)
    if teacher_labels:
        found = _drop_labels(found, teacher_labels)
    elif labels:
        found = replace(found, labels=labels)
    if box_file:
        found = _add_validation_boxes(found, box_file)
    if not found.validation:
        found = _hold_out_validation(found, validation_share)
    found = _remove_validation_from_train(found)
    _check_training_data(found, paths.root, needs_classes=teacher_labels is None)
    return found


def _add_validation_boxes(found: TrainingData, table: Path) -> TrainingData:
    """Add the images of a boxes.csv to the validation split, and take them out of training."""
    entries = iter_valid_annotations(
        read_boxes_csv(table, table.parent), allow_missing_images=False
    )
    samples, problems = create_evaluation_samples(
        Dataset("boxes.csv", tuple(entries)), found.labels
    )
    if not samples:
        first = f"; the first problem: {to_one_line(problems[0])}" if problems else ""
        raise UsageError(
            f"--boxes {table}: no box has both a photograph and a class of the data set{first}"
        )
    sample_by_path = {
        sample.annotation.image_path: TrainingSample(
            sample.annotation.image_name, sample.annotation.image_path, sample.class_index
        )
        for sample in samples
    }
    boxed = tuple(sample_by_path.values())
    left_out = (*found.left_out, *map(str, problems))
    return replace(
        found,
        train=_exclude_samples(found.train, boxed),
        validation=(*boxed, *_exclude_samples(found.validation, boxed)),
        localization_samples=tuple(samples),
        left_out=left_out,
    )


def _exclude_samples(
    samples: Sequence[TrainingSample], others: Sequence[TrainingSample]
) -> tuple[TrainingSample, ...]:
    """The samples whose files, with links resolved, are not among the others."""
    excluded = {os.path.realpath(sample.path) for sample in others}
    return tuple(sample for sample in samples if os.path.realpath(sample.path) not in excluded)


def _hold_out_validation(found: TrainingData, share: float) -> TrainingData:
    """Move a share of each class, at least one image, to validation, chosen by the names."""
    order = sorted(found.train, key=lambda sample: (hash_image_name(sample.name), sample.name))
    total = Counter(sample.label for sample in order)
    seen: Counter[int | None] = Counter()
    held_out: set[TrainingSample] = set()
    for sample in order:
        count = total[sample.label]
        most = max(count - 1, 1)  # leaves one to train on; a class of one image fails a later check
        if seen[sample.label] < min(max(1, round(share * count)), most):
            held_out.add(sample)
        seen[sample.label] += 1
    return replace(
        found,
        train=tuple(sample for sample in found.train if sample not in held_out),
        validation=tuple(sample for sample in found.train if sample in held_out),
    )


def _drop_labels(found: TrainingData, teacher: Labels) -> TrainingData:
    """Remove the labels, because a teacher gives them; the splits stay as they are."""
    parts = (
        tuple(replace(sample, label=None) for sample in part)
        for part in (found.train, found.validation)
    )
    return replace(
        found, labels=teacher, train=next(parts), validation=next(parts), localization_samples=()
    )


def _remove_validation_from_train(found: TrainingData) -> TrainingData:
    """Remove from the training split every image that is also in the validation split."""
    train = _exclude_samples(found.train, found.validation)
    both = len(found.train) - len(train)
    notes = (f"{both} photographs are in both splits; camcli keeps them for validation",)
    return replace(found, train=train, left_out=(*found.left_out, *(notes if both else ())))


def _check_training_data(found: TrainingData, root: Path, *, needs_classes: bool) -> None:
    if not found.train:
        raise UsageError(f"{root} has no training photographs{_left_out_message(found.left_out)}")
    if not needs_classes:
        return
    names = found.labels.names
    if len(names) < 2:
        raise UsageError(
            f"{root} has photographs of {format_few_names(names) or 'no class'}; "
            "training needs two or more classes, each in its own folder"
        )
    for sample in (*found.train, *found.validation):
        if sample.label is not None and not 0 <= sample.label < len(names):
            raise UsageError(
                f"{root}: {to_one_line(sample.name)} has class {sample.label}, but there are only "
                f"{len(names)} class names"
            )
    trained = {sample.label for sample in found.train}
    missing = [name for number, name in enumerate(names) if number not in trained]
    if missing:
        raise UsageError(
            f"{root}: these classes have no photograph for training: {format_few_names(missing)}; "
            "a class needs at least two, one of them for validation"
        )


def _left_out_message(left_out: Sequence[str]) -> str:
    return f" ({to_one_line(left_out[0])})" if left_out else ""
