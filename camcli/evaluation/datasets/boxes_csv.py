"""boxes.csv: one row per box."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.core.types import ImageSource
from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem, Corners, Problem
from camcli.evaluation.datasets.reader import DatasetPaths, DatasetReader
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.evaluation.datasets.text_files import load_text, parse_size
from camcli.io.discovery import find_image_sources

CORNER_COLUMNS = ("x1", "y1", "x2", "y2")


def _has_boxes_csv(paths: DatasetPaths) -> bool:
    if paths.annotations:  # these count, whatever else lies in the folder
        return paths.annotations.suffix == ".csv"
    return paths.root.suffix == ".csv" or os.path.isfile(paths.root / "boxes.csv")


def _read_annotations(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    inside = paths.root.is_dir()
    table = paths.annotations or (paths.root / "boxes.csv" if inside else paths.root)
    images = paths.images or (paths.root if inside else table.parent)
    return read_boxes_csv(table, images, paths.skip_folder if inside else None)


def read_boxes_csv(
    table: Path, root: Path, skip_folder: Path | None = None
) -> Iterator[AnnotationOrProblem]:
    """Read boxes.csv: image, class_index (or class), width, height, x1, y1, x2, y2.

    Image names are relative to `root`. With `skip_folder`, every image below `root` that has no
    row is a problem, except those in this folder. Raises UsageError if a column is missing.
    """
    header, rows = _load_rows(table)
    label = next((name for name in ("class_index", "class") if name in header), None)
    missing = [name for name in ("image", *CORNER_COLUMNS) if name not in header]
    if missing or label is None:
        columns = ", ".join(missing or ["class_index"])
        raise UsageError(f"{table}: the first row must name the columns; missing: {columns}")
    boxes: dict[tuple[str, int | str], list[Corners]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    for number, cells in rows:
        row = dict(zip(header, cells, strict=False))
        try:
            x1, y1, x2, y2 = (float(row[name]) for name in CORNER_COLUMNS)
            size = parse_size(row["width"], row["height"]) if row.get("width") else None
            boxes[row["image"], _parse_label(row[label])].append((x1, y1, x2, y2))
        except (KeyError, ValueError, OverflowError) as error:
            location = f"{table.name}, line {number}"
            yield Problem("annotation cannot be read", location, _row_error_message(error))
            continue
        if size:
            sizes[row["image"]] = size
    for (image, kind), corners in boxes.items():
        yield Annotation(image, root / image, kind, tuple(corners), sizes.get(image))
    if skip_folder is not None:
        yield from _iter_unlisted_images(root, {image for image, _ in boxes}, skip_folder)


def _load_rows(table: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the other rows with their line numbers."""
    reader = csv.reader(io.StringIO(load_text(table), newline=""))
    try:
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise UsageError(f"{table}: {error}") from None
    return [cell.strip() for cell in rows[0][1]] if rows else [], rows[1:]


def _row_error_message(error: Exception) -> str:
    return f"no column {error}" if isinstance(error, KeyError) else str(error)


def _parse_label(cell: str) -> int | str:
    return int(cell) if re.fullmatch(r"\s*[0-9]{1,9}\s*", cell) else cell.strip()


def _iter_unlisted_images(root: Path, listed: set[str], skip_folder: Path) -> Iterator[Problem]:
    known = {os.path.normpath(root / image) for image in listed}
    for source in find_image_sources([str(root)], [], skip_folder):
        if isinstance(source, ImageSource) and os.path.normpath(source.path) not in known:
            yield Problem("image has no annotation", source.name)


register_reader(
    DatasetReader(
        name="boxes.csv",
        recognized_by="boxes.csv",
        priority=30,
        detect=_has_boxes_csv,
        read_annotations=_read_annotations,
    )
)
