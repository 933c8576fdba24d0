"""wsolevaluation's metadata: text files of one line per image, with boxes or masks."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import (
    Annotation,
    AnnotationOrProblem,
    Corners,
    MaskArray,
    MaskLoader,
    Problem,
)
from camcli.evaluation.datasets.reader import DatasetPaths, DatasetReader
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.evaluation.datasets.text_files import load_nonempty_lines, parse_size
from camcli.io.images import load_image


def _find_metadata_folder(paths: DatasetPaths) -> Path:
    inside = os.path.isfile(paths.root / "image_ids.txt")
    return paths.root if inside else paths.root / (paths.split or "test")


def _read_annotations(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    images = paths.images or paths.root
    return read_wsol_metadata(_find_metadata_folder(paths), images, paths.annotations or images)


def read_wsol_metadata(
    folder: Path, image_root: Path, mask_root: Path
) -> Iterator[AnnotationOrProblem]:
    """Read image_ids, class_labels, image_sizes and localization (boxes or mask files).

    Raises UsageError for a file that cannot be read or has lines of another form.
    """
    labels = {
        image: int(cells[0]) for image, cells in _iter_image_cells(folder, "class_labels.txt", 1)
    }
    sizes = _load_sizes(folder)
    boxes: dict[str, list[Corners]] = defaultdict(list)
    masks: dict[str, list[MaskLoader]] = defaultdict(list)
    ignored: dict[str, list[MaskLoader]] = defaultdict(list)
    for number, line in load_nonempty_lines(folder / "localization.txt"):
        image, *cells = line.split(",")
        try:
            _add_localization(image, cells, boxes, masks, ignored, mask_root)
        except ValueError as error:
            location = f"localization.txt, line {number}"
            yield Problem("annotation cannot be read", location, str(error))
    for image in (line.strip() for _, line in load_nonempty_lines(folder / "image_ids.txt")):
        if image not in labels:
            yield Problem("image has no annotation", image, "no line in class_labels.txt")
            continue
        yield Annotation(
            image,
            image_root / image,
            labels[image],
            tuple(boxes[image]),
            sizes.get(image),
            tuple(masks[image]),
            tuple(ignored[image]),
        )


def _load_sizes(folder: Path) -> dict[str, tuple[int, int]]:
    """The size (W, H) of each image, if there is a file of sizes; 0 means unknown."""
    if not (folder / "image_sizes.txt").is_file():
        return {}
    rows = _iter_image_cells(folder, "image_sizes.txt", 2)
    return {image: parse_size(*cells) for image, cells in rows if all(map(int, cells))}


def _iter_image_cells(folder: Path, name: str, count: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in load_nonempty_lines(folder / name):
        image, *cells = line.split(",")
        if len(cells) != count or not all(re.fullmatch(r"\s*\d{1,9}\s*", c) for c in cells):
            raise UsageError(f"{folder / name}: line {number} does not fit wsolevaluation's format")
        yield image, cells


def _add_localization(
    image: str,
    cells: list[str],
    boxes: Mapping[str, list[Corners]],
    masks: Mapping[str, list[MaskLoader]],
    ignored: Mapping[str, list[MaskLoader]],
    mask_root: Path,
) -> None:
    if len(cells) == 4:
        x1, y1, x2, y2 = map(float, cells)
        boxes[image].append((x1, y1, x2, y2))
    elif len(cells) == 2:
        masks[image].append(partial(load_mask, mask_root / cells[0].strip()))
        if cells[1].strip():
            ignored[image].append(partial(load_mask, mask_root / cells[1].strip()))
    else:
        raise ValueError("expected four corners, or a mask file and a file of ignored pixels")


def load_mask(path: Path) -> MaskArray:
    """Load a mask image: every pixel that is not black. Raises ImageError."""
    picked: MaskArray = np.asarray(load_image(path).convert("L")) > 0
    return picked


register_reader(
    DatasetReader(
        name="wsolevaluation metadata",
        recognized_by="wsolevaluation's image_ids.txt",
        priority=20,
        detect=lambda paths: os.path.isfile(_find_metadata_folder(paths) / "image_ids.txt"),
        read_annotations=_read_annotations,
    )
)
