"""Boxes as lines of text: boxes.csv, TS-CAM's ImageNet lists, wsolevaluation's metadata."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from camcli import images, sources
from camcli.errors import UsageError
from camcli.evaluation.truth import Corners, Found, Mask, Picked, Problem, Truth
from camcli.records import Source

CORNERS = ("x1", "y1", "x2", "y2")


def lines(path: Path) -> list[str]:
    """The lines of a text file that say something. Raises UsageError when it cannot be read."""
    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: {reason}") from None


def boxes_csv(table: Path, root: Path, whole_folder: bool) -> Iterator[Found]:
    """boxes.csv: image, class_index (or class), width, height, x1, y1, x2, y2; a row a box.

    Images are named relative to `root`. With `whole_folder` the images there that no row names
    are Problems.
    """
    rows = list(csv.reader(lines(table)))
    header = [cell.strip() for cell in rows[0]] if rows else []
    label = next((name for name in ("class_index", "class") if name in header), None)
    missing = [name for name in ("image", *CORNERS) if name not in header]
    if missing or label is None:
        wanted = ", ".join(missing or ["class_index"])
        raise UsageError(f"{table}: the first row must name the columns; it lacks {wanted}")
    boxes: dict[tuple[str, int | str], list[Corners]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for number, cells in enumerate(rows[1:], start=2):
        row = dict(zip(header, cells, strict=False))
        try:
            x1, y1, x2, y2 = (float(row[name]) for name in CORNERS)
            boxes[row["image"], _label(row[label])].append((x1, y1, x2, y2))
            if row.get("width") and row.get("height"):
                sizes[row["image"]] = _size(row["width"], row["height"])
        except (KeyError, ValueError):
            yield Problem("annotation cannot be read", f"{table.name}, row {number}")
    for (image, kind), corners in boxes.items():
        yield Truth(image, root / image, kind, tuple(corners), sizes.get(image))
    if whole_folder:
        yield from _unnamed(root, {image for image, _ in boxes})


def _label(text: str) -> int | str:
    return int(text) if text.strip().isdecimal() else text.strip()


def _size(width: str, height: str) -> tuple[int, int]:
    size = int(float(width)), int(float(height))
    if min(size) < 1:
        raise ValueError
    return size


def _unnamed(root: Path, named: set[str]) -> Iterator[Problem]:
    known = {(root / image).resolve() for image in named}
    for source in sources.find([str(root)], [], skip=Path(os.devnull)):
        if isinstance(source, Source) and source.path.resolve() not in known:
            yield Problem("image has no annotation", source.name)


def tscam_list(table: Path, root: Path) -> Iterator[Found]:
    """TS-CAM's list of ImageNet: `wnid/name.JPEG label x1 y1 x2 y2 [x1 y1 x2 y2 ...]`."""
    for number, line in enumerate(lines(table), start=1):
        image, *rest = line.split()
        try:
            values = [float(value) for value in rest]
            label, corners = int(values[0]), values[1:]
            if len(corners) % 4:
                raise ValueError
        except (ValueError, IndexError, OverflowError):
            yield Problem("annotation cannot be read", f"{table.name}, line {number}")
            continue
        boxes = tuple(zip(*(corners[i::4] for i in range(4)), strict=True))
        yield Truth(image, root / image, label, boxes)


def wsol_metadata(folder: Path, root: Path, masks: Path) -> Iterator[Found]:
    """wsolevaluation's: image_ids, class_labels, image_sizes and localization, boxes or masks."""
    labels = {image: int(cells[0]) for image, cells in _by_image(folder, "class_labels.txt", 1)}
    sizes: dict[str, tuple[int, int]] = {}
    if (folder / "image_sizes.txt").is_file():
        of_size = _by_image(folder, "image_sizes.txt", 2)
        sizes = {image: _size(*cells) for image, cells in of_size}
    boxes: dict[str, list[Corners]] = defaultdict(list)
    picked: dict[str, list[Mask]] = defaultdict(list)
    ignored: dict[str, list[Mask]] = defaultdict(list)
    for number, line in enumerate(lines(folder / "localization.txt"), start=1):
        image, *cells = line.split(",")
        try:
            _localise(image, cells, boxes, picked, ignored, masks)
        except ValueError:
            yield Problem("annotation cannot be read", f"localization.txt, line {number}")
    for image in (line.strip() for line in lines(folder / "image_ids.txt")):
        if image not in labels:
            yield Problem("image has no annotation", image, "no line in class_labels.txt")
            continue
        own = (tuple(found[image]) for found in (picked, ignored))
        mask, ignore = own
        yield Truth(
            image, root / image, labels[image], tuple(boxes[image]), sizes.get(image), mask, ignore
        )


def _by_image(folder: Path, name: str, count: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines(folder / name), start=1):
        image, *cells = line.split(",")
        if len(cells) != count or not all(cell.strip().isdecimal() for cell in cells):
            raise UsageError(f"{folder / name}: line {number} is not of wsolevaluation's form")
        yield image, cells


def _localise(
    image: str,
    cells: list[str],
    boxes: Mapping[str, list[Corners]],
    picked: Mapping[str, list[Mask]],
    ignored: Mapping[str, list[Mask]],
    root: Path,
) -> None:
    if len(cells) == 4:
        x1, y1, x2, y2 = map(float, cells)
        boxes[image].append((x1, y1, x2, y2))
    elif len(cells) == 2:
        picked[image].append(partial(mask_file, root / cells[0].strip()))
        if cells[1].strip():
            ignored[image].append(partial(mask_file, root / cells[1].strip()))
    else:
        raise ValueError


def mask_file(path: Path) -> Picked:
    """A mask from a picture: all that is not black. Raises ImageError."""
    picked: Picked = np.asarray(images.decode(path).convert("L")) > 0
    return picked
