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
from camcli.core.types import ImageSource
from camcli.evaluation.datasets.annotations import (
    Annotation,
    AnnotationOrProblem,
    Corners,
    MaskArray,
    MaskLoader,
    Problem,
)
from camcli.io.discovery import find_image_sources
from camcli.io.images import load_image

CORNER_COLUMNS = ("x1", "y1", "x2", "y2")


def load_text(path: Path) -> str:
    """A text file in UTF-8. Raises UsageError when it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: {reason}") from None


def load_nonempty_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that say something, numbered from 1. Raises UsageError when there are none."""
    numbered = enumerate(load_text(path).split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in numbered if line.strip()]


def read_boxes_csv(
    table: Path, root: Path, skip_folder: Path | None = None
) -> Iterator[AnnotationOrProblem]:
    """boxes.csv: image, class_index (or class), width, height, x1, y1, x2, y2; a row a box.

    Images are named relative to `root`. With `skip`, a folder left out, the images below root that
    no row names are Problems.
    """
    reader = csv.reader(io.StringIO(load_text(table), newline=""))
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UsageError(f"{table}: {error}") from None
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    label = next((name for name in ("class_index", "class") if name in header), None)
    missing = [name for name in ("image", *CORNER_COLUMNS) if name not in header]
    if missing or label is None:
        wanted = ", ".join(missing or ["class_index"])
        raise UsageError(f"{table}: the first row must name the columns; it lacks {wanted}")
    boxes: dict[tuple[str, int | str], list[Corners]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for number, cells in rows[1:]:
        row = dict(zip(header, cells, strict=False))
        try:
            x1, y1, x2, y2 = (float(row[name]) for name in CORNER_COLUMNS)
            size = _parse_size(row["width"], row["height"]) if row.get("width") else None
            boxes[row["image"], _parse_label(row[label])].append((x1, y1, x2, y2))
        except (KeyError, ValueError, OverflowError) as error:
            where = f"{table.name}, line {number}"
            yield Problem("annotation cannot be read", where, _row_error_message(error))
            continue
        if size:
            sizes[row["image"]] = size
    for (image, kind), corners in boxes.items():
        yield Annotation(image, root / image, kind, tuple(corners), sizes.get(image))
    if skip_folder is not None:
        yield from _iter_unlisted_images(root, {image for image, _ in boxes}, skip_folder)


def _row_error_message(error: Exception) -> str:
    return f"no column {error}" if isinstance(error, KeyError) else str(error)


def _parse_label(cell: str) -> int | str:
    return int(cell) if re.fullmatch(r"\s*[0-9]{1,9}\s*", cell) else cell.strip()


def _parse_size(width: str, height: str) -> tuple[int, int]:
    size = int(float(width)), int(float(height))
    if min(size) < 1:
        raise ValueError(f"a size of {width} x {height}")
    return size


def _iter_unlisted_images(root: Path, named: set[str], skip: Path) -> Iterator[Problem]:
    known = {os.path.normpath(root / image) for image in named}
    for source in find_image_sources([str(root)], [], skip):
        if isinstance(source, ImageSource) and os.path.normpath(source.path) not in known:
            yield Problem("image has no annotation", source.name)


def read_tscam_list(table: Path, root: Path) -> Iterator[AnnotationOrProblem]:
    """TS-CAM's list of ImageNet: `wnid/name.JPEG label x1 y1 x2 y2 [x1 y1 x2 y2 ...]`."""
    for number, line in load_nonempty_lines(table):
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
        yield Annotation(image, root / image, label, boxes)


def read_wsol_metadata(folder: Path, root: Path, masks: Path) -> Iterator[AnnotationOrProblem]:
    """wsolevaluation's: image_ids, class_labels, image_sizes and localization, boxes or masks."""
    labels = {
        image: int(cells[0]) for image, cells in _iter_image_cells(folder, "class_labels.txt", 1)
    }
    sizes: dict[str, tuple[int, int]] = {}
    if (folder / "image_sizes.txt").is_file():
        of_size = _iter_image_cells(folder, "image_sizes.txt", 2)
        sizes = {image: _parse_size(*cells) for image, cells in of_size if all(map(int, cells))}
    boxes: dict[str, list[Corners]] = defaultdict(list)
    picked: dict[str, list[MaskLoader]] = defaultdict(list)
    ignored: dict[str, list[MaskLoader]] = defaultdict(list)
    for number, line in load_nonempty_lines(folder / "localization.txt"):
        image, *cells = line.split(",")
        try:
            _add_localization(image, cells, boxes, picked, ignored, masks)
        except ValueError as error:
            where = f"localization.txt, line {number}"
            yield Problem("annotation cannot be read", where, str(error))
    for image in (line.strip() for _, line in load_nonempty_lines(folder / "image_ids.txt")):
        if image not in labels:
            yield Problem("image has no annotation", image, "no line in class_labels.txt")
            continue
        own, size = tuple(boxes[image]), sizes.get(image)
        mask, ignore = tuple(picked[image]), tuple(ignored[image])
        yield Annotation(image, root / image, labels[image], own, size, mask, ignore)


def _iter_image_cells(folder: Path, name: str, count: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in load_nonempty_lines(folder / name):
        image, *cells = line.split(",")
        if len(cells) != count or not all(re.fullmatch(r"\s*\d{1,9}\s*", c) for c in cells):
            raise UsageError(f"{folder / name}: line {number} is not of wsolevaluation's form")
        yield image, cells


def _add_localization(
    image: str,
    cells: list[str],
    boxes: Mapping[str, list[Corners]],
    picked: Mapping[str, list[MaskLoader]],
    ignored: Mapping[str, list[MaskLoader]],
    root: Path,
) -> None:
    if len(cells) == 4:
        x1, y1, x2, y2 = map(float, cells)
        boxes[image].append((x1, y1, x2, y2))
    elif len(cells) == 2:
        picked[image].append(partial(load_mask, root / cells[0].strip()))
        if cells[1].strip():
            ignored[image].append(partial(load_mask, root / cells[1].strip()))
    else:
        raise ValueError("neither four corners nor a mask and what to ignore")


def load_mask(path: Path) -> MaskArray:
    """A mask from a picture: all that is not black. Raises ImageError."""
    picked: MaskArray = np.asarray(load_image(path).convert("L")) > 0
    return picked
