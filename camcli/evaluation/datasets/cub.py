"""CUB_200_2011 as it is distributed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Corners, Found, Problem, Truth
from camcli.evaluation.datasets.tables import lines

SPLITS = {"test": "0", "train": "1"}


def cub(folder: Path, root: Path, split: str) -> Iterator[Found]:
    """The photographs of a split; boxes are x y w h, cut to whole numbers as TS-CAM does."""
    images, classes = _column(folder, "images.txt"), _column(folder, "image_class_labels.txt")
    splits, boxes = _column(folder, "train_test_split.txt"), _column(folder, "bounding_boxes.txt")
    if split not in SPLITS:
        raise UsageError(f"--split {split}: CUB_200_2011 has {' and '.join(SPLITS)}")
    for number, image in images.items():
        if splits.get(number, "0") != SPLITS[split]:
            continue
        try:
            label = int(classes[number]) - 1
            corners = (_corners(boxes[number].split()),) if number in boxes else ()
        except (KeyError, ValueError, OverflowError) as error:
            why = "it has no class" if isinstance(error, KeyError) else str(error)
            yield Problem("annotation cannot be read", image, why)
            continue
        yield Truth(image, root / image, label, corners)


def names(folder: Path) -> Mapping[int, str]:
    """The names of the classes by their indices: `001.Laysan_Albatross` is 0, Laysan Albatross."""
    if not (folder / "classes.txt").is_file():
        return {}
    found = _column(folder, "classes.txt")
    return {
        int(number) - 1: re.sub(r"^\d+\.(?=.)", "", name).replace("_", " ")
        for number, name in found.items()
        if number.isdecimal() and len(number) < 9
    }


def _column(folder: Path, name: str) -> dict[str, str]:
    """What stands beside each number; names may have spaces."""
    pairs = (line.split(maxsplit=1) for _, line in lines(folder / name))
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def _corners(cells: list[str]) -> Corners:
    x, y, w, h = (int(float(cell)) for cell in cells)
    return x, y, x + w, y + h
