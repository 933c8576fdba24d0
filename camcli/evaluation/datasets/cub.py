"""CUB_200_2011 as it is distributed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem, Corners, Problem
from camcli.evaluation.datasets.tables import load_nonempty_lines

CUB_SPLIT_FLAGS = {"test": "0", "train": "1"}


def read_cub(folder: Path, root: Path, split: str) -> Iterator[AnnotationOrProblem]:
    """The photographs of a split; boxes are x y w h, cut to whole numbers as TS-CAM does."""
    images, classes = (
        _load_column(folder, "images.txt"),
        _load_column(folder, "image_class_labels.txt"),
    )
    splits, boxes = (
        _load_column(folder, "train_test_split.txt"),
        _load_column(folder, "bounding_boxes.txt"),
    )
    if split not in CUB_SPLIT_FLAGS:
        raise UsageError(f"--split {split}: CUB_200_2011 has {' and '.join(CUB_SPLIT_FLAGS)}")
    for number, image in images.items():
        if splits.get(number, "0") != CUB_SPLIT_FLAGS[split]:
            continue
        try:
            label = int(classes[number]) - 1
            corners = (_parse_cub_corners(boxes[number].split()),) if number in boxes else ()
        except (KeyError, ValueError, OverflowError) as error:
            why = "it has no class" if isinstance(error, KeyError) else str(error)
            yield Problem("annotation cannot be read", image, why)
            continue
        yield Annotation(image, root / image, label, corners)


def load_cub_class_names(folder: Path) -> Mapping[int, str]:
    """The names of the classes by their indices: `001.Laysan_Albatross` is 0, Laysan Albatross."""
    if not (folder / "classes.txt").is_file():
        return {}
    found = _load_column(folder, "classes.txt")
    return {
        int(number) - 1: re.sub(r"^\d+\.(?=.)", "", name).replace("_", " ")
        for number, name in found.items()
        if number.isdecimal() and len(number) < 9
    }


def _load_column(folder: Path, name: str) -> dict[str, str]:
    """What stands beside each number; names may have spaces."""
    pairs = (line.split(maxsplit=1) for _, line in load_nonempty_lines(folder / name))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _parse_cub_corners(cells: list[str]) -> Corners:
    x, y, w, h = (int(float(cell)) for cell in cells)
    return x, y, x + w, y + h
