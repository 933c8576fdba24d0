"""Data sets to train on, each recognised by its files and read by one function."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.core.types import Failed, Source
from camcli.evaluation.datasets import cub, tables
from camcli.evaluation.datasets import registry as datasets
from camcli.evaluation.datasets.annotations import Problem, Truth, sound
from camcli.evaluation.datasets.registry import Dataset
from camcli.io import discovery as sources
from camcli.io import labels as naming
from camcli.io.labels import Labels
from camcli.training.data.samples import Photo, Photos, Where

TRAIN, VALIDATION = ("train",), ("val", "valid", "validation", "test")


def _is_lists(root: Path) -> bool:
    return root.is_dir() and _list(root, TRAIN) is not None


def _list(root: Path, parts: Sequence[str]) -> Path | None:
    """The one list of a part, in the folder or, as TS-CAM has it, in a folder of lists inside."""
    folders = (f for f in sorted(root.iterdir()) if re.fullmatch(r"(.*_)?lists?", f.name))
    for folder in (root, *folders):
        files = [f for f in sorted(folder.glob("*.txt")) if f.stem.split("_")[0] in parts]
        if files:
            return files[0]
    return None


def _cub(where: Where) -> Photos:
    root, images = where.root, where.images or where.root / "images"
    every = {part: list(cub.cub(root, images, part)) for part in cub.SPLITS}
    named = cub.names(root)
    count = _count(root, every["train"])
    names = naming.make([named.get(n, f"class {n + 1}") for n in range(count)])
    return _of_truths("CUB_200_2011", names, every["train"], every["test"])


def _lists(where: Where) -> Photos:
    root = where.root
    train, held = _list(root, TRAIN), _list(root, VALIDATION)
    assert train is not None
    every = list(tables.tscam_list(train, _images(where, TRAIN)))
    count = _count(root, every)
    tests = list(tables.tscam_list(held, _images(where, VALIDATION))) if held else []
    return _of_truths("lists", naming.default(count), every, tests)


def _count(root: Path, found: Sequence[Truth | Problem]) -> int:
    """How many classes there are: labels are whole numbers from 0, and none is left out."""
    labels = {int(truth.label) for truth in found if isinstance(truth, Truth)}
    if labels != set(range(len(labels))):
        missing = next(n for n in range(len(labels) + 1) if n not in labels)
        raise UsageError(
            f"{root}: {len(labels)} labels from {min(labels)} to {max(labels)}, and none is "
            f"{missing}; they must count from 0 (CUB's from 1) without a gap"
        )
    return len(labels)


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
    train = part_of(root, TRAIN)
    held = part_of(root, VALIDATION) if train else None
    train = train or root
    skip = os.path.realpath(where.skip)
    names = sorted(
        p.name
        for p in train.iterdir()
        if p.is_dir() and not p.name.startswith(".") and os.path.realpath(p) != skip
    )
    photos, left_out = _photographs(train, where.skip, names)
    tests, also = _photographs(held, where.skip, names) if held else ([], [])
    return Photos(
        "folder by class", naming.make(names), tuple(photos), tuple(tests), (), (*left_out, *also)
    )


def part_of(root: Path, names: Sequence[str]) -> Path | None:
    """A part of a data set: a folder of that name that has folders of classes."""
    folders = (root / name for name in names)
    return next((f for f in folders if f.is_dir() and any(p.is_dir() for p in f.iterdir())), None)


def _photographs(root: Path, skip: Path, names: Sequence[str]) -> tuple[list[Photo], list[str]]:
    """The photographs in each class's folder, however deep; and what is left out."""
    photos: list[Photo] = []
    left_out: list[str] = []
    for label, name in enumerate(names):
        for item in _found(root / name, skip):
            if isinstance(item, Failed):
                left_out.append(str(item))
            else:
                photos.append(Photo(os.path.relpath(item.path, root), item.path, label))
    others = [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name not in names]
    left_out += [
        f"{root / name}: no class to train on has this name"
        for name in others
        if not name.startswith(".") and _found(root / name, skip)
    ]
    return photos, left_out


def _found(folder: Path, skip: Path) -> Sequence[Source | Failed]:
    """What is in a folder; nothing where it is empty."""
    try:
        return list(sources.find([str(folder)], [], skip))
    except UsageError:
        return []


def _unlabelled(where: Where) -> Photos:
    found = sources.find([str(where.root)], [], where.skip)
    photos = [
        Photo(os.path.relpath(s.path, where.root), s.path, None)
        for s in found
        if isinstance(s, Source)
    ]
    left_out = tuple(str(item) for item in found if isinstance(item, Failed))
    return Photos("photographs", naming.make([]), tuple(photos), (), (), left_out)


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
