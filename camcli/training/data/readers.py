"""Read training data from disk: a data set of a registered format, or a folder of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.core.types import Failure, ImageSource
from camcli.evaluation.datasets.annotations import Annotation, Problem, iter_valid_annotations
from camcli.evaluation.datasets.evaluation_samples import create_evaluation_samples
from camcli.evaluation.datasets.reader import DatasetPaths, TrainingSplit
from camcli.evaluation.datasets.reader_registry import Dataset, list_readers
from camcli.io.discovery import find_image_sources
from camcli.io.labels import create_folder_labels, create_labels
from camcli.io.run_folders import is_run_folder_name
from camcli.training.data.training_samples import TrainingData, TrainingSample

TRAIN_FOLDER_NAMES, VALIDATION_FOLDER_NAMES = ("train",), ("val", "valid", "validation", "test")


def read_training_data(paths: DatasetPaths, *, needs_labels: bool) -> TrainingData:
    """Read a data set of a registered format, a folder by class, or a folder of plain images.

    A folder by class without a split folder is read as plain images if training needs no labels.
    Raises UsageError.
    """
    readers = [reader for reader in list_readers() if reader.read_training_split]
    for reader in readers:
        if reader.read_training_split and reader.detect(paths):
            return _create_training_data(reader.name, reader.read_training_split(paths))
    has_split = find_split_folder(paths.root, TRAIN_FOLDER_NAMES) is not None
    by_class = paths.root.is_dir() and (needs_labels or has_split)
    if paths.images:
        kind = "folder by class" if by_class else "photographs"
        names = " and ".join(reader.name for reader in readers)
        raise UsageError(f"--images works only with {names}; camcli reads {paths.root} as a {kind}")
    return _read_class_folders(paths) if by_class else _read_unlabeled(paths)


def _create_training_data(format_name: str, split: TrainingSplit) -> TrainingData:
    """Convert annotations to training data; an annotation needs no boxes here."""
    train, validation = (
        [entry for entry in part if isinstance(entry, Annotation) and _has_image(entry)]
        for part in (split.train, split.validation)
    )
    boxed = [annotation for annotation in validation if annotation.boxes]
    valid = tuple(iter_valid_annotations(boxed, allow_missing_images=False))
    localization, problems = create_evaluation_samples(Dataset(format_name, valid), split.labels)
    entries = (*split.train, *split.validation)
    malformed = [entry for entry in entries if isinstance(entry, Problem)]
    missing = [
        Problem("image is missing", entry.image_name, str(entry.image_path))
        for entry in entries
        if isinstance(entry, Annotation) and not _has_image(entry)
    ]
    return TrainingData(
        format_name,
        split.labels,
        tuple(map(_create_sample, train)),
        tuple(map(_create_sample, validation)),
        tuple(localization),
        tuple(map(str, (*malformed, *missing, *problems))),
    )


def _has_image(annotation: Annotation) -> bool:
    return os.path.isfile(annotation.image_path)


def _create_sample(annotation: Annotation) -> TrainingSample:
    return TrainingSample(annotation.image_name, annotation.image_path, int(annotation.label))


def _read_class_folders(paths: DatasetPaths) -> TrainingData:
    root = paths.root
    train = find_split_folder(root, TRAIN_FOLDER_NAMES)
    held_out = find_split_folder(root, VALIDATION_FOLDER_NAMES) if train else None
    train = train or root
    skip = os.path.realpath(paths.skip_folder)
    names = sorted(
        p.name
        for p in train.iterdir()
        if p.is_dir()
        and not p.name.startswith(".")
        and not is_run_folder_name(p.name)
        and os.path.realpath(p) != skip
    )
    samples, left_out = _find_class_samples(train, paths.skip_folder, names)
    validation, also = (
        _find_class_samples(held_out, paths.skip_folder, names) if held_out else ([], [])
    )
    return TrainingData(
        "folder by class",
        create_folder_labels(names),
        tuple(samples),
        tuple(validation),
        (),
        (*left_out, *also),
    )


def find_split_folder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder of a split: it has one of these names and contains folders of classes."""
    folders = (root / name for name in names)
    return next((f for f in folders if f.is_dir() and any(p.is_dir() for p in f.iterdir())), None)


def _find_class_samples(
    root: Path, skip_folder: Path, names: Sequence[str]
) -> tuple[list[TrainingSample], list[str]]:
    """The images in the folder of each class, at any depth; and what is left out."""
    samples: list[TrainingSample] = []
    left_out: list[str] = []
    for label, name in enumerate(names):
        for source in _find_images(root / name, skip_folder):
            if isinstance(source, Failure):
                left_out.append(str(source))
            else:
                relative = os.path.relpath(source.path, root)
                samples.append(TrainingSample(relative, source.path, label))
    others = [p.name for p in sorted(root.iterdir()) if p.is_dir() and p.name not in names]
    left_out += [
        f"{root / name}: no training class has this name"
        for name in others
        if not name.startswith(".") and _find_images(root / name, skip_folder)
    ]
    return samples, left_out


def _find_images(folder: Path, skip_folder: Path) -> Sequence[ImageSource | Failure]:
    """List the images in a folder, which may be empty."""
    try:
        return list(find_image_sources([str(folder)], [], skip_folder))
    except UsageError:
        return []


def _read_unlabeled(paths: DatasetPaths) -> TrainingData:
    found = find_image_sources([str(paths.root)], [], paths.skip_folder)
    samples = [
        TrainingSample(os.path.relpath(source.path, paths.root), source.path, None)
        for source in found
        if isinstance(source, ImageSource)
    ]
    left_out = tuple(str(item) for item in found if isinstance(item, Failure))
    return TrainingData("photographs", create_labels([]), tuple(samples), (), (), left_out)
