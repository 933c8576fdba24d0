"""Boxes as lines of text: boxes.csv, TS-CAM's ImageNet lists, wsolevaluation's metadata."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from camcli.core.errors import UsageError
from camcli.core.types import Source
from camcli.evaluation.datasets.annotations import Corners, Found, Mask, Picked, Problem, Truth
from camcli.io import discovery as sources
from camcli.io import images

CORNERS = ("x1", "y1", "x2", "y2")


def text(path: Path) -> str:
    """A text file in UTF-8. Raises UsageError when it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: {reason}") from None


def lines(path: Path) -> list[tuple[int, str]]:
    """The lines that say something, numbered from 1. Raises UsageError when there are none."""
    numbered = enumerate(text(path).split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in numbered if line.strip()]


def boxes_csv(table: Path, root: Path, skip: Path | None = None) -> Iterator[Found]:
    """boxes.csv: image, class_index (or class), width, height, x1, y1, x2, y2; a row a box.

    Images are named relative to `root`. With `skip`, a folder left out, the images below root that
    no row names are Problems.
    """
    reader = csv.reader(io.StringIO(text(table), newline=""))
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UsageError(f"{table}: {error}") from None
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    label = next((name for name in ("class_index", "class") if name in header), None)
    missing = [name for name in ("image", *CORNERS) if name not in header]
    if missing or label is None:
        wanted = ", ".join(missing or ["class_index"])
        raise UsageError(f"{table}: the first row must name the columns; it lacks {wanted}")
    boxes: dict[tuple[str, int | str], list[Corners]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for number, cells in rows[1:]:
        row = dict(zip(header, cells, strict=False))
        try:
            x1, y1, x2, y2 = (float(row[name]) for name in CORNERS)
            size = _size(row["width"], row["height"]) if row.get("width") else None
            boxes[row["image"], _label(row[label])].append((x1, y1, x2, y2))
        except (KeyError, ValueError, OverflowError) as error:
            where = f"{table.name}, line {number}"
            yield Problem("annotation cannot be read", where, _why(error))
            continue
        if size:
            sizes[row["image"]] = size
    for (image, kind), corners in boxes.items():
        yield Truth(image, root / image, kind, tuple(corners), sizes.get(image))
    if skip is not None:
        yield from _unnamed(root, {image for image, _ in boxes}, skip)


def _why(error: Exception) -> str:
    return f"no column {error}" if isinstance(error, KeyError) else str(error)


def _label(cell: str) -> int | str:
    return int(cell) if re.fullmatch(r"\s*[0-9]{1,9}\s*", cell) else cell.strip()


def _size(width: str, height: str) -> tuple[int, int]:
    size = int(float(width)), int(float(height))
    if min(size) < 1:
        raise ValueError(f"a size of {width} x {height}")
    return size


def _unnamed(root: Path, named: set[str], skip: Path) -> Iterator[Problem]:
    known = {os.path.normpath(root / image) for image in named}
    for source in sources.find([str(root)], [], skip):
        if isinstance(source, Source) and os.path.normpath(source.path) not in known:
            yield Problem("image has no annotation", source.name)


def tscam_list(table: Path, root: Path) -> Iterator[Found]:
    """TS-CAM's list of ImageNet: `wnid/name.JPEG label x1 y1 x2 y2 [x1 y1 x2 y2 ...]`."""
    for number, line in lines(table):
        image, *rest = line.split()
        try:
            values = [float(value) for value in rest]
            label, corners = int(rest[0]), values[1:]
            if len(corners) % 4:
                raise ValueError("corners come in fours")
        except (ValueError, IndexError, OverflowError) as error:
            yield Problem("annotation cannot be read", f"{table.name}, line {number}", str(error))
            continue
        boxes = tuple(zip(*(corners[i::4] for i in range(4)), strict=True))
        yield Truth(image, root / image, label, boxes)


def wsol_metadata(folder: Path, root: Path, masks: Path) -> Iterator[Found]:
    """wsolevaluation's: image_ids, class_labels, image_sizes and localization, boxes or masks."""
    labels = {image: int(cells[0]) for image, cells in _by_image(folder, "class_labels.txt", 1)}
    sizes: dict[str, tuple[int, int]] = {}
    if (folder / "image_sizes.txt").is_file():
        of_size = _by_image(folder, "image_sizes.txt", 2)
        sizes = {image: _size(*cells) for image, cells in of_size if all(map(int, cells))}
    boxes: dict[str, list[Corners]] = defaultdict(list)
    picked: dict[str, list[Mask]] = defaultdict(list)
    ignored: dict[str, list[Mask]] = defaultdict(list)
    for number, line in lines(folder / "localization.txt"):
        image, *cells = line.split(",")
        try:
            _localise(image, cells, boxes, picked, ignored, masks)
        except ValueError as error:
            where = f"localization.txt, line {number}"
            yield Problem("annotation cannot be read", where, str(error))
    for image in (line.strip() for _, line in lines(folder / "image_ids.txt")):
        if image not in labels:
            yield Problem("image has no annotation", image, "no line in class_labels.txt")
            continue
        own, size = tuple(boxes[image]), sizes.get(image)
        mask, ignore = tuple(picked[image]), tuple(ignored[image])
        yield Truth(image, root / image, labels[image], own, size, mask, ignore)


def _by_image(folder: Path, name: str, count: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in lines(folder / name):
        image, *cells = line.split(",")
        if len(cells) != count or not all(re.fullmatch(r"\s*\d{1,9}\s*", c) for c in cells):
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
        raise ValueError("neither four corners nor a mask and what to ignore")


def mask_file(path: Path) -> Picked:
    """A mask from a picture: all that is not black. Raises ImageError."""
    picked: Picked = np.asarray(images.decode(path).convert("L")) > 0
    return picked
