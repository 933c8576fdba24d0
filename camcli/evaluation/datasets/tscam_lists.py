"""TS-CAM's lists of ImageNet: one line per image. One list to evaluate, several to train."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem, Problem
from camcli.evaluation.datasets.reader import (
    DatasetPaths,
    DatasetReader,
    TrainingSplit,
    count_classes,
)
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.evaluation.datasets.text_files import load_nonempty_lines
from camcli.io.labels import create_default_labels

TRAIN_NAMES, VALIDATION_NAMES = ("train",), ("val", "valid", "validation", "test")


def read_tscam_list(table: Path, root: Path) -> Iterator[AnnotationOrProblem]:
    """Read TS-CAM's list: `wnid/name.JPEG label x1 y1 x2 y2 [x1 y1 x2 y2 ...]`."""
    for number, line in load_nonempty_lines(table):
        image, *rest = line.split()
        try:
            values = [float(value) for value in rest]
            label, corners = int(rest[0]), values[1:]
            if len(corners) % 4:
                raise ValueError("each box needs four numbers")
        except (ValueError, IndexError, OverflowError) as error:
            yield Problem("annotation cannot be read", f"{table.name}, line {number}", str(error))
            continue
        boxes = tuple(zip(*(corners[i::4] for i in range(4)), strict=True))
        yield Annotation(image, root / image, label, boxes)


def _read_annotations(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    return read_tscam_list(paths.root, paths.images or paths.root.parent)


def _has_lists(paths: DatasetPaths) -> bool:
    return paths.root.is_dir() and _find_list_file(paths.root, TRAIN_NAMES) is not None


def _find_list_file(root: Path, split_names: Sequence[str]) -> Path | None:
    """Find the list of a split: in the folder, or in a subfolder of lists as in TS-CAM."""
    folders = (f for f in sorted(root.iterdir()) if re.fullmatch(r"(.*_)?lists?", f.name))
    for folder in (root, *folders):
        files = [f for f in sorted(folder.glob("*.txt")) if f.stem.split("_")[0] in split_names]
        if files:
            return files[0]
    return None


def _read_training_split(paths: DatasetPaths) -> TrainingSplit:
    train, validation = (_read_split(paths, names) for names in (TRAIN_NAMES, VALIDATION_NAMES))
    labels = create_default_labels(count_classes(paths.root, train))
    return TrainingSplit(labels, train, validation)


def _read_split(paths: DatasetPaths, split_names: Sequence[str]) -> list[AnnotationOrProblem]:
    table = _find_list_file(paths.root, split_names)
    root = paths.images or paths.root
    folder = next((root / name for name in split_names if (root / name).is_dir()), root)
    return list(read_tscam_list(table, folder)) if table else []


register_reader(
    DatasetReader(
        name="TS-CAM list",
        recognized_by="a TS-CAM list *.txt",
        priority=40,
        detect=lambda paths: paths.root.is_file() and paths.root.suffix == ".txt",
        read_annotations=_read_annotations,
    )
)
register_reader(
    DatasetReader(
        name="lists",
        recognized_by="train*.txt, a list of images and labels",
        priority=45,
        detect=_has_lists,
        read_training_split=_read_training_split,
    )
)
