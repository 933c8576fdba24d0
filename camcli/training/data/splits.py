"""From a folder to what is trained on and what validates, and whether that can be learnt from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from camcli.core.errors import UsageError, to_one_line
from camcli.evaluation.datasets.annotations import hash_image_name, iter_valid_annotations
from camcli.evaluation.datasets.boxes_csv import read_boxes_csv
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.registry import Dataset
from camcli.evaluation.datasets.samples import create_evaluation_samples
from camcli.io.labels import Labels
from camcli.training.data.readers import read_training_data
from camcli.training.data.samples import TrainingData, TrainingSample, format_few_names


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
    """The photographs that boxes.csv names are for validation, besides those that were."""
    truths = list(
        iter_valid_annotations(read_boxes_csv(table, table.parent), allow_missing_images=False)
    )
    items, problems = create_evaluation_samples(Dataset("boxes.csv", tuple(truths)), found.labels)
    if not items:
        first = f"; the first problem: {to_one_line(problems[0])}" if problems else ""
        raise UsageError(f"--boxes {table}: no box is of a photograph and class known here{first}")
    held = {
        item.annotation.image_path: TrainingSample(
            item.annotation.image_name, item.annotation.image_path, item.class_index
        )
        for item in items
    }
    boxed = tuple(held.values())
    left_out = (*found.left_out, *map(str, problems))
    return replace(
        found,
        train=_exclude_samples(found.train, boxed),
        validation=(*boxed, *_exclude_samples(found.validation, boxed)),
        localization_samples=tuple(items),
        left_out=left_out,
    )


def _exclude_samples(
    photos: Sequence[TrainingSample], others: Sequence[TrainingSample]
) -> tuple[TrainingSample, ...]:
    """The photographs that are not among others, by whatever path."""
    elsewhere = {os.path.realpath(photo.path) for photo in others}
    return tuple(photo for photo in photos if os.path.realpath(photo.path) not in elsewhere)


def _hold_out_validation(found: TrainingData, share: float) -> TrainingData:
    """A share of each class for validation, at least one photograph: which, goes by their names."""
    order = sorted(found.train, key=lambda photo: (hash_image_name(photo.name), photo.name))
    total = Counter(photo.label for photo in order)
    seen: Counter[int | None] = Counter()
    held: set[TrainingSample] = set()
    for photo in order:
        most = total[photo.label] - 1  # one is left to train on, and the data is checked for it
        if seen[photo.label] < min(max(1, round(share * total[photo.label])), max(most, 1)):
            held.add(photo)
        seen[photo.label] += 1
    return replace(
        found,
        train=tuple(photo for photo in found.train if photo not in held),
        validation=tuple(photo for photo in found.train if photo in held),
    )


def _drop_labels(found: TrainingData, teacher: Labels) -> TrainingData:
    """Without labels, which the teacher gives; the parts stay apart."""
    parts = (
        tuple(replace(photo, label=None) for photo in part)
        for part in (found.train, found.validation)
    )
    return replace(
        found, labels=teacher, train=next(parts), validation=next(parts), localization_samples=()
    )


def _remove_validation_from_train(found: TrainingData) -> TrainingData:
    """No photograph is trained on that also validates."""
    train = _exclude_samples(found.train, found.validation)
    both = len(found.train) - len(train)
    said = (f"{both} photographs are in both parts; they are kept for validation",) if both else ()
    return replace(found, train=train, left_out=(*found.left_out, *said))


def _check_training_data(found: TrainingData, root: Path, *, needs_classes: bool) -> None:
    if not found.train:
        raise UsageError(f"{root}: no photograph to train on{_left_out_message(found.left_out)}")
    if not needs_classes:
        return
    names = found.labels.names
    if len(names) < 2:
        raise UsageError(
            f"{root}: photographs of {format_few_names(names) or 'no class'}; "
            "a classifier needs two classes, each in a folder of its name"
        )
    for photo in (*found.train, *found.validation):
        if photo.label is not None and not 0 <= photo.label < len(names):
            raise UsageError(
                f"{root}: {to_one_line(photo.name)} is of class {photo.label} among {len(names)} "
                f"class names"
            )
    has = {photo.label for photo in found.train}
    without = [name for number, name in enumerate(names) if number not in has]
    if without:
        raise UsageError(
            f"{root}: no photograph left to train on of {format_few_names(without)}; "
            "a class needs two or more, one for validation"
        )


def _left_out_message(left_out: Sequence[str]) -> str:
    return f" ({to_one_line(left_out[0])})" if left_out else ""
