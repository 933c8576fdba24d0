"""CUB_200_2011 as its authors distribute it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem, Corners, Problem
from camcli.evaluation.datasets.reader import (
    DatasetPaths,
    DatasetReader,
    TrainingSplit,
    count_classes,
)
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.io.cub_tables import load_cub_column
from camcli.io.labels import create_labels, folder_to_class_name

SPLIT_FLAGS = {"test": "0", "train": "1"}
TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "bounding_boxes.txt")


def _has_cub_tables(paths: DatasetPaths) -> bool:
    """Whether two or more of the tables exist; the reader then reports a missing one."""
    return sum(os.path.isfile(paths.root / name) for name in TABLES) >= 2


def _read_annotations(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    return _read_split(paths, paths.split or "test")


def _read_split(paths: DatasetPaths, split: str) -> Iterator[AnnotationOrProblem]:
    """Read the images of a split. Boxes are x y w h, cut to whole numbers as TS-CAM does."""
    images, classes, splits, boxes = (load_cub_column(paths.root / name) for name in TABLES)
    if split not in SPLIT_FLAGS:
        raise UsageError(f"--split {split}: CUB_200_2011 has {' and '.join(SPLIT_FLAGS)}")
    root = paths.images or paths.root / "images"
    for number, image in images.items():
        if splits.get(number, "0") != SPLIT_FLAGS[split]:
            continue
        try:
            label = int(classes[number]) - 1
            corners = (_parse_corners(boxes[number].split()),) if number in boxes else ()
        except (KeyError, ValueError, OverflowError) as error:
            reason = "it has no class" if isinstance(error, KeyError) else str(error)
            yield Problem("annotation cannot be read", image, reason)
            continue
        yield Annotation(image, root / image, label, corners)


def _load_class_names(paths: DatasetPaths) -> Mapping[int, str]:
    """The class names by index: `001.Laysan_Albatross` becomes 0, Laysan Albatross."""
    if not (paths.root / "classes.txt").is_file():
        return {}
    found = load_cub_column(paths.root / "classes.txt")
    return {
        int(number) - 1: folder_to_class_name(name)
        for number, name in found.items()
        if number.isdecimal() and len(number) < 9
    }


def _read_training_split(paths: DatasetPaths) -> TrainingSplit:
    train, test = (list(_read_split(paths, split)) for split in ("train", "test"))
    names = _load_class_names(paths)
    count = count_classes(paths.root, train)
    labels = create_labels([names.get(n, f"class {n + 1}") for n in range(count)])
    return TrainingSplit(labels, train, test)


def _parse_corners(cells: list[str]) -> Corners:
    x, y, w, h = (int(float(cell)) for cell in cells)
    return x, y, x + w, y + h


register_reader(
    DatasetReader(
        name="CUB_200_2011",
        recognized_by="CUB's images.txt and image_class_labels.txt",
        priority=10,
        detect=_has_cub_tables,
        read_annotations=_read_annotations,
        load_class_names=_load_class_names,
        read_training_split=_read_training_split,
    )
)
