"""CUB_200_2011 as it is distributed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from camcli.errors import UsageError
from camcli.evaluation.readers.tables import lines
from camcli.evaluation.truth import Corners, Found, Problem, Truth

SPLITS = {"test": "0", "train": "1"}


def cub(folder: Path, root: Path, split: str) -> Iterator[Found]:
    """The photographs of a split; boxes are x y w h, cut to whole numbers as TS-CAM does."""
    names, classes = _columns(folder, "images.txt"), _columns(folder, "image_class_labels.txt")
    splits, boxes = _columns(folder, "train_test_split.txt"), _columns(folder, "bounding_boxes.txt")
    if split not in SPLITS:
        raise UsageError(f"--split {split}: CUB_200_2011 has {' and '.join(SPLITS)}")
    for number, (image,) in names.items():
        if splits.get(number, ["0"])[0] != SPLITS[split]:
            continue
        try:
            label = int(classes[number][0]) - 1
            corners = (_corners(boxes[number]),) if number in boxes else ()
        except (KeyError, ValueError, IndexError, OverflowError):
            yield Problem("annotation cannot be read", image)
            continue
        yield Truth(image, root / image, label, corners)


def names(folder: Path) -> tuple[str, ...]:
    """The classes' names in the order of their numbers: `001.Laysan_Albatross`, less number."""
    if not (folder / "classes.txt").is_file():
        return ()
    found = _columns(folder, "classes.txt")
    return tuple(name.partition(".")[2].replace("_", " ") for (name,) in found.values())


def _columns(folder: Path, name: str) -> dict[str, list[str]]:
    return {number: rest for number, *rest in map(str.split, lines(folder / name)) if rest}


def _corners(cells: list[str]) -> Corners:
    x, y, w, h = (int(float(cell)) for cell in cells)
    return x, y, x + w, y + h
