"""Which photographs to train on and which to validate with, and the class of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from camcli import labels as naming
from camcli import sources
from camcli.errors import UsageError, one_line
from camcli.evaluation import datasets
from camcli.evaluation.datasets import Dataset, Item
from camcli.evaluation.readers import cub, tables
from camcli.evaluation.truth import Problem, Truth, code, sound
from camcli.labels import Labels
from camcli.records import Failed, Source

TRAIN, VALIDATION = ("train",), ("val", "valid", "validation", "test")


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph by its name; `label` is its class, or None where a teacher is to say it."""

    name: str
    path: Path
    label: int | None


@dataclass(frozen=True, slots=True)
class Photos:
    """What a data set holds. `truths` are those of the validation photographs that have boxes."""

    kind: str
    labels: Labels
    train: tuple[Photo, ...]
    validation: tuple[Photo, ...]
    truths: tuple[Item, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Where:
    """Where a data set is: `boxes` and `images` if elsewhere, `skip` what is not part of it.

    `share` of every class is kept for validation where the data set has no such part.
    """

    root: Path
    images: Path | None = None
    boxes: Path | None = None
    skip: Path = Path(os.devnull)
    share: float = 0.1


def read(where: Where, names: Labels | None = None, teacher: Labels | None = None) -> Photos:
    """The photographs of a data set, recognised by its files.

    Labels are `names` or what the data set has; those of a `teacher` need no class at all. Raises
    UsageError where there is nothing to learn: no photograph, one class, a class without any.
    """
    if not os.path.exists(where.root):
        raise UsageError(f"{where.root}: no such folder")
    kind = "photographs" if teacher else next(k for k, sign in SIGNS.items() if sign(where.root))
    found = READERS[kind](where)
    own = teacher or names
    if own is not None:
        found = replace(found, labels=own)
    if where.boxes:
        found = _with_boxes(found, where.boxes)
    if not found.validation:
        found = _split(found, where.share)
    _check(found, where.root, needs_classes=teacher is None)
    return found


def _is_lists(root: Path) -> bool:
    return root.is_dir() and _list(root, TRAIN) is not None


def _list(root: Path, parts: Sequence[str]) -> Path | None:
    """The one list of a part, in the folder or, as TS-CAM has it, in a folder of lists inside."""
    for folder in (root, *sorted(root.glob("*list*"))):
        files = [f for f in sorted(folder.glob("*.txt")) if f.stem.split("_")[0] in parts]
        if files:
            return files[0]
    return None


def _cub(where: Where) -> Photos:
    root, images = where.root, where.images or where.root / "images"
    every = {part: list(cub.cub(root, images, part)) for part in cub.SPLITS}
    named = cub.names(root)
    last = max((t.label for t in every["train"] if isinstance(t, Truth)), default=-1)
    names = naming.make([named.get(n, f"class {n + 1}") for n in range(int(last) + 1)])
    return _of_truths("CUB_200_2011", names, every["train"], every["test"])


def _lists(where: Where) -> Photos:
    root = where.root
    train, held = _list(root, TRAIN), _list(root, VALIDATION)
    assert train is not None
    every = list(tables.tscam_list(train, _images(where, TRAIN)))
    last = max((int(t.label) for t in every if isinstance(t, Truth)), default=-1)
    tests = list(tables.tscam_list(held, _images(where, VALIDATION))) if held else []
    return _of_truths("lists", naming.default(last + 1), every, tests)


def _images(where: Where, parts: Sequence[str]) -> Path:
    root = where.images or where.root
    return next((root / part for part in parts if (root / part).is_dir()), root)


def _of_truths(
    kind: str, names: Labels, train: Sequence[Truth | Problem], tests: Sequence[Truth | Problem]
) -> Photos:
    """From records of a data set: a truth without boxes is a photograph all the same."""
    here = [t for t in (*train, *tests) if isinstance(t, Truth) and os.path.isfile(t.path)]
    absent = [
        Problem("image is missing", t.image, str(t.path))
        for t in (*train, *tests)
        if isinstance(t, Truth) and not os.path.isfile(t.path)
    ]
    broken = [t for t in (*train, *tests) if isinstance(t, Problem)]
    of_test = {id(t) for t in tests}
    photos = [(Photo(t.image, t.path, int(t.label)), id(t) in of_test) for t in here]
    boxed = [t for t in here if id(t) in of_test and t.boxes]
    items, problems = datasets.bind(Dataset(kind, tuple(sound(boxed, sized=False))), names)
    return Photos(
        kind,
        names,
        tuple(photo for photo, test in photos if not test),
        tuple(photo for photo, test in photos if test),
        tuple(items),
        tuple(map(str, (*broken, *absent, *problems))),
    )


def _folders(where: Where) -> Photos:
    root = where.root
    parts = [_part(root, names) for names in (TRAIN, VALIDATION)]
    train, held = parts if all(parts) else (root, None)
    assert train is not None
    names = sorted(p.name for p in train.iterdir() if p.is_dir() and not p.name.startswith("."))
    index = {name: number for number, name in enumerate(names)}
    photos, left_out = _photographs(train, where.skip, index)
    tests, also = _photographs(held, where.skip, index) if held else ([], [])
    return Photos(
        "folder by class", naming.make(names), tuple(photos), tuple(tests), (), (*left_out, *also)
    )


def _part(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _photographs(root: Path, skip: Path, index: Mapping[str, int]) -> tuple[list[Photo], list[str]]:
    """The photographs below a folder, each of the class whose folder it is in."""
    photos: list[Photo] = []
    left_out: list[str] = []
    for item in sources.find([str(root)], [], skip):
        if isinstance(item, Failed):
            left_out.append(_failure(item))
            continue
        name = os.path.relpath(item.path, root)
        label = index.get(Path(name).parts[0])
        if label is None:
            left_out.append(f"{name}: it is in no class's folder")
        else:
            photos.append(Photo(name, item.path, label))
    return photos, left_out


def _unlabelled(where: Where) -> Photos:
    found = sources.find([str(where.root)], [], where.skip)
    photos = [
        Photo(os.path.relpath(s.path, where.root), s.path, None)
        for s in found
        if isinstance(s, Source)
    ]
    left_out = tuple(_failure(item) for item in found if isinstance(item, Failed))
    return Photos("photographs", naming.make([]), tuple(photos), (), (), left_out)


def _with_boxes(found: Photos, table: Path) -> Photos:
    """The photographs that boxes.csv names are for validation, wherever else they are."""
    truths = list(sound(tables.boxes_csv(table, table.parent), sized=False))
    items, problems = datasets.bind(Dataset("boxes.csv", tuple(truths)), found.labels)
    if not items:
        first = f"; the first problem: {one_line(problems[0])}" if problems else ""
        raise UsageError(f"--boxes {table}: no box is of a photograph and class known here{first}")
    boxed = {os.path.realpath(item.truth.path) for item in items}
    held = {
        item.truth.path: Photo(item.truth.image, item.truth.path, item.class_index)
        for item in items
    }
    train = tuple(p for p in found.train if os.path.realpath(p.path) not in boxed)
    left_out = (*found.left_out, *map(str, problems))
    return replace(
        found, train=train, validation=tuple(held.values()), truths=tuple(items), left_out=left_out
    )


def _split(found: Photos, share: float) -> Photos:
    """A share of each class for validation, at least one photograph: which, goes by their names."""
    order = sorted(found.train, key=lambda photo: (code(photo.name), photo.name))
    total = Counter(photo.label for photo in order)
    seen: Counter[int | None] = Counter()
    held: set[Photo] = set()
    for photo in order:
        if seen[photo.label] < max(1, round(share * total[photo.label])):
            held.add(photo)
        seen[photo.label] += 1
    return replace(
        found,
        train=tuple(photo for photo in found.train if photo not in held),
        validation=tuple(photo for photo in found.train if photo in held),
    )


def _check(found: Photos, root: Path, *, needs_classes: bool) -> None:
    if not found.train:
        raise UsageError(f"{root}: no photograph to train on{_why(found.left_out)}")
    if not needs_classes:
        return
    names = found.labels.names
    if len(names) < 2:
        raise UsageError(
            f"{root}: photographs of {', '.join(map(one_line, names)) or 'no class'}; a classifier "
            f"needs two classes, each in a folder of its name"
        )
    for part, photos in (("train", found.train), ("validation", found.validation)):
        labels = {photo.label for photo in photos if photo.label is not None}
        if labels and max(labels) >= len(names):
            raise UsageError(f"{root}: class {max(labels)} among {len(names)} class names ({part})")
    without = [name for n, name in enumerate(names) if n not in {p.label for p in found.train}]
    if without:
        more = f" and {len(without) - 3} more" if without[3:] else ""
        few = ", ".join(map(one_line, without[:3]))
        raise UsageError(
            f"{root}: no photograph left to train on of {few}{more}; a class needs two or more, "
            f"one for validation"
        )


def _why(left_out: Sequence[str]) -> str:
    return f" ({one_line(left_out[0])})" if left_out else ""


def _failure(item: Failed) -> str:
    return f"{item.name}: {item.reason}"


SIGNS: Mapping[str, Callable[[Path], bool]] = {
    "CUB_200_2011": lambda root: os.path.isfile(root / "train_test_split.txt"),
    "lists": _is_lists,
    "folder by class": os.path.isdir,
    "photographs": lambda root: True,
}
READERS: Mapping[str, Callable[[Where], Photos]] = {
    "CUB_200_2011": _cub,
    "lists": _lists,
    "folder by class": _folders,
    "photographs": _unlabelled,
}
