"""From a folder to what is trained on and what validates, and whether that can be learnt from."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from camcli.core.errors import UsageError, one_line
from camcli.evaluation.datasets import registry as datasets
from camcli.evaluation.datasets import tables
from camcli.evaluation.datasets.annotations import code, sound
from camcli.evaluation.datasets.registry import Dataset
from camcli.io.labels import Labels
from camcli.training.data.readers import READERS, SIGNS, TRAIN, part_of
from camcli.training.data.samples import Photo, Photos, Where, few


def read(where: Where, names: Labels | None = None, teacher: Labels | None = None) -> Photos:
    """The photographs of a data set, recognised by its files.

    Labels are `names` or what the data set has; those of a `teacher` need no class at all. Raises
    UsageError where there is nothing to learn: no photograph, one class, a class without any.
    """
    if not os.path.exists(where.root):
        raise UsageError(f"{where.root}: no such folder")
    kind = next(k for k, sign in SIGNS.items() if sign(where.root))
    if kind == "folder by class" and teacher and not part_of(where.root, TRAIN):
        kind = "photographs"
    if where.images and kind in ("folder by class", "photographs"):
        raise UsageError(f"--images is for lists and CUB; {where.root} is taken as a {kind}")
    found = READERS[kind](where)
    if teacher:
        found = _unnamed(found, teacher)
    elif names:
        found = replace(found, labels=names)
    if where.boxes:
        found = _with_boxes(found, where.boxes)
    if not found.validation:
        found = _split(found, where.share)
    found = _apart(found)
    _check(found, where.root, needs_classes=teacher is None)
    return found


def _with_boxes(found: Photos, table: Path) -> Photos:
    """The photographs that boxes.csv names are for validation, besides those that were."""
    truths = list(sound(tables.boxes_csv(table, table.parent), sized=False))
    items, problems = datasets.bind(Dataset("boxes.csv", tuple(truths)), found.labels)
    if not items:
        first = f"; the first problem: {one_line(problems[0])}" if problems else ""
        raise UsageError(f"--boxes {table}: no box is of a photograph and class known here{first}")
    held = {
        item.truth.path: Photo(item.truth.image, item.truth.path, item.class_index)
        for item in items
    }
    boxed = tuple(held.values())
    left_out = (*found.left_out, *map(str, problems))
    return replace(
        found,
        train=_without(found.train, boxed),
        validation=(*boxed, *_without(found.validation, boxed)),
        truths=tuple(items),
        left_out=left_out,
    )


def _without(photos: Sequence[Photo], others: Sequence[Photo]) -> tuple[Photo, ...]:
    """The photographs that are not among others, by whatever path."""
    elsewhere = {os.path.realpath(photo.path) for photo in others}
    return tuple(photo for photo in photos if os.path.realpath(photo.path) not in elsewhere)


def _split(found: Photos, share: float) -> Photos:
    """A share of each class for validation, at least one photograph: which, goes by their names."""
    order = sorted(found.train, key=lambda photo: (code(photo.name), photo.name))
    total = Counter(photo.label for photo in order)
    seen: Counter[int | None] = Counter()
    held: set[Photo] = set()
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


def _unnamed(found: Photos, teacher: Labels) -> Photos:
    """Without labels, which the teacher gives; the parts stay apart."""
    parts = (
        tuple(replace(photo, label=None) for photo in part)
        for part in (found.train, found.validation)
    )
    return replace(found, labels=teacher, train=next(parts), validation=next(parts), truths=())


def _apart(found: Photos) -> Photos:
    """No photograph is trained on that also validates."""
    train = _without(found.train, found.validation)
    both = len(found.train) - len(train)
    said = (f"{both} photographs are in both parts; they are kept for validation",) if both else ()
    return replace(found, train=train, left_out=(*found.left_out, *said))


def _check(found: Photos, root: Path, *, needs_classes: bool) -> None:
    if not found.train:
        raise UsageError(f"{root}: no photograph to train on{_why(found.left_out)}")
    if not needs_classes:
        return
    names = found.labels.names
    if len(names) < 2:
        raise UsageError(
            f"{root}: photographs of {few(names) or 'no class'}; a classifier needs two classes, "
            f"each in a folder of its name"
        )
    for photo in (*found.train, *found.validation):
        if photo.label is not None and not 0 <= photo.label < len(names):
            raise UsageError(
                f"{root}: {one_line(photo.name)} is of class {photo.label} among {len(names)} "
                f"class names"
            )
    has = {photo.label for photo in found.train}
    without = [name for number, name in enumerate(names) if number not in has]
    if without:
        raise UsageError(
            f"{root}: no photograph left to train on of {few(without)}; a class needs two or "
            f"more, one for validation"
        )


def _why(left_out: Sequence[str]) -> str:
    return f" ({one_line(left_out[0])})" if left_out else ""
