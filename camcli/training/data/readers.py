"""Data sets to train on, each recognised by its files and read by one function."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.core.types import Failure, ImageSource
from camcli.evaluation.datasets.annotations import Annotation, Problem, iter_valid_annotations
from camcli.evaluation.datasets.cub import CUB_SPLIT_FLAGS, load_cub_class_names, read_cub
from camcli.evaluation.datasets.registry import Dataset, create_evaluation_samples
from camcli.evaluation.datasets.tables import read_tscam_list
from camcli.io.discovery import find_image_sources
from camcli.io.labels import Labels, create_default_labels, create_labels
from camcli.training.data.samples import TrainingData, TrainingPaths, TrainingSample

TRAIN_FOLDER_NAMES, VALIDATION_FOLDER_NAMES = ("train",), ("val", "valid", "validation", "test")


def _has_lists(root: Path) -> bool:
    return root.is_dir() and _find_list_file(root, TRAIN_FOLDER_NAMES) is not None


def _find_list_file(root: Path, parts: Sequence[str]) -> Path | None:
    """The one list of a part, in the folder or, as TS-CAM has it, in a folder of lists inside."""
    folders = (f for f in sorted(root.iterdir()) if re.fullmatch(r"(.*_)?lists?", f.name))
    for folder in (root, *folders):
        files = [f for f in sorted(folder.glob("*.txt")) if f.stem.split("_")[0] in parts]
        if files:
            return files[0]
    return None


def _load_cub(where: TrainingPaths) -> TrainingData:
    root, images = where.root, where.images or where.root / "images"
    every = {part: list(read_cub(root, images, part)) for part in CUB_SPLIT_FLAGS}
    named = load_cub_class_names(root)
    count = _count_classes(root, every["train"])
    names = create_labels([named.get(n, f"class {n + 1}") for n in range(count)])
    return _create_from_annotations("CUB_200_2011", names, every["train"], every["test"])


def _load_lists(where: TrainingPaths) -> TrainingData:
    root = where.root
    train, held = (
        _find_list_file(root, TRAIN_FOLDER_NAMES),
        _find_list_file(root, VALIDATION_FOLDER_NAMES),
    )
    assert train is not None
    every = list(read_tscam_list(train, _find_images_folder(where, TRAIN_FOLDER_NAMES)))
    count = _count_classes(root, every)
    tests = (
        list(read_tscam_list(held, _find_images_folder(where, VALIDATION_FOLDER_NAMES)))
        if held
        else []
    )
    return _create_from_annotations("lists", create_default_labels(count), every, tests)


def _count_classes(root: Path, found: Sequence[Annotation | Problem]) -> int:
    """How many classes there are: labels are whole numbers from 0, and none is left out."""
    labels = {int(truth.label) for truth in found if isinstance(truth, Annotation)}
    if labels != set(range(len(labels))):
        missing = next(n for n in range(len(labels) + 1) if n not in labels)
        raise UsageError(
            f"{root}: {len(labels)} labels from {min(labels)} to {max(labels)}, and none is "
            f"{missing}; they must count from 0 (CUB's from 1) without a gap"
        )
    return len(labels)


def _find_images_folder(where: TrainingPaths, parts: Sequence[str]) -> Path:
    root = where.images or where.root
    return next((root / part for part in parts if (root / part).is_dir()), root)


def _create_from_annotations(
    kind: str,
    names: Labels,
    train: Sequence[Annotation | Problem],
    tests: Sequence[Annotation | Problem],
) -> TrainingData:
    """From records of a data set: a truth without boxes is a photograph all the same."""
    here = [
        t for t in (*train, *tests) if isinstance(t, Annotation) and os.path.isfile(t.image_path)
    ]
    absent = [
        Problem("image is missing", t.image_name, str(t.image_path))
        for t in (*train, *tests)
        if isinstance(t, Annotation) and not os.path.isfile(t.image_path)
    ]
    broken = [t for t in (*train, *tests) if isinstance(t, Problem)]
    of_test = {id(t) for t in tests}
    photos = [
        (TrainingSample(t.image_name, t.image_path, int(t.label)), id(t) in of_test) for t in here
    ]
    boxed = [t for t in here if id(t) in of_test and t.boxes]
    items, problems = create_evaluation_samples(
        Dataset(kind, tuple(iter_valid_annotations(boxed, allow_missing_images=False))), names
    )
    return TrainingData(
        kind,
        names,
        tuple(photo for photo, test in photos if not test),
        tuple(photo for photo, test in photos if test),
        tuple(items),
        tuple(map(str, (*broken, *absent, *problems))),
    )


def _load_class_folders(where: TrainingPaths) -> TrainingData:
    root = where.root
    train = find_split_folder(root, TRAIN_FOLDER_NAMES)
    held = find_split_folder(root, VALIDATION_FOLDER_NAMES) if train else None
    train = train or root
    skip = os.path.realpath(where.skip_folder)
    names = sorted(
        p.name
        for p in train.iterdir()
        if p.is_dir() and not p.name.startswith(".") and os.path.realpath(p) != skip
    )
    photos, left_out = _find_class_samples(train, where.skip_folder, names)
    tests, also = _find_class_samples(held, where.skip_folder, names) if held else ([], [])
    return TrainingData(
        "folder by class",
        create_labels(names),
        tuple(photos),
        tuple(tests),
        (),
        (*left_out, *also),
    )


def find_split_folder(root: Path, names: Sequence[str]) -> Path | None:
    """A part of a data set: a folder of that name that has folders of classes."""
    folders = (root / name for name in names)
    return next((f for f in folders if f.is_dir() and any(p.is_dir() for p in f.iterdir())), None)


def _find_class_samples(
    root: Path, skip: Path, names: Sequence[str]
) -> tuple[list[TrainingSample], list[str]]:
    """The photographs in each class's folder, however deep; and what is left out."""
    photos: list[TrainingSample] = []
    left_out: list[str] = []
    for label, name in enumerate(names):
        for item in _find_images(root / name, skip):
            if isinstance(item, Failure):
                left_out.append(str(item))
            else:
                photos.append(TrainingSample(os.path.relpath(item.path, root), item.path, label))
    others = [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name not in names]
    left_out += [
        f"{root / name}: no class to train on has this name"
        for name in others
        if not name.startswith(".") and _find_images(root / name, skip)
    ]
    return photos, left_out


def _find_images(folder: Path, skip: Path) -> Sequence[ImageSource | Failure]:
    """What is in a folder; nothing where it is empty."""
    try:
        return list(find_image_sources([str(folder)], [], skip))
    except UsageError:
        return []


def _load_unlabeled(where: TrainingPaths) -> TrainingData:
    found = find_image_sources([str(where.root)], [], where.skip_folder)
    photos = [
        TrainingSample(os.path.relpath(s.path, where.root), s.path, None)
        for s in found
        if isinstance(s, ImageSource)
    ]
    left_out = tuple(str(item) for item in found if isinstance(item, Failure))
    return TrainingData("photographs", create_labels([]), tuple(photos), (), (), left_out)


TRAINING_FORMAT_DETECTORS: Mapping[str, Callable[[Path], bool]] = {
    "CUB_200_2011": lambda root: os.path.isfile(root / "train_test_split.txt"),
    "lists": _has_lists,
    "folder by class": os.path.isdir,
    "photographs": lambda root: True,
}
TRAINING_FORMAT_READERS: Mapping[str, Callable[[TrainingPaths], TrainingData]] = {
    "CUB_200_2011": _load_cub,
    "lists": _load_lists,
    "folder by class": _load_class_folders,
    "photographs": _load_unlabeled,
}
