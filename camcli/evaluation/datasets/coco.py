"""COCO's JSON: boxes and segmentations, classes by name."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import (
    MAX_COORDINATE_PIXELS,
    Annotation,
    AnnotationOrProblem,
    Corners,
    MaskArray,
    MaskLoader,
    Problem,
)
from camcli.evaluation.datasets.tables import load_text

MAX_MASK_PIXELS = 2**26  # pixels of a mask
MALFORMED_ENTRY_MESSAGE = "image_id, category_id, bbox or segmentation is off"


def read_coco(file: Path, root: Path) -> Iterator[AnnotationOrProblem]:
    """Each class of each image; crowds are ignored: neither object nor background."""
    document = _load_coco_json(file)
    names = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
    boxes: dict[tuple[Any, str], list[Corners]] = defaultdict(list)
    masks: dict[tuple[Any, str], list[MaskLoader]] = defaultdict(list)
    crowds: dict[Any, list[MaskLoader]] = defaultdict(list)
    sizes = {entry["id"]: _read_entry_size(entry) for entry in document["images"]}
    for entry in document["annotations"]:
        try:
            image, name = entry["image_id"], names[entry["category_id"]]
            mask = _read_segmentation(entry.get("segmentation"), sizes[image])
            if entry.get("iscrowd"):
                crowds[image] += mask
                continue
            x, y, w, h = (float(value) for value in entry["bbox"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            where = f"annotation {entry.get('id')}" if isinstance(entry, dict) else "an annotation"
            detail = str(error) if isinstance(error, ValueError) else MALFORMED_ENTRY_MESSAGE
            yield Problem("annotation cannot be read", where, detail)
            continue
        boxes[image, name].append((x, y, x + w, y + h))
        masks[image, name] += mask
    described = {entry["id"]: entry for entry in document["images"]}
    for key, corners in boxes.items():
        image, name = key
        file_name = str(described[image]["file_name"])
        own, crowd = tuple(masks[key]), tuple(crowds[image])
        size = sizes[image]
        yield Annotation(file_name, root / file_name, name, tuple(corners), size, own, crowd)
    annotated = {image for image, _ in boxes}
    for image, entry in described.items():
        if image not in annotated:
            yield Problem("image has no annotation", str(entry["file_name"]))


def _load_coco_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(load_text(file))
        keys = [(entry["id"], entry["name"]) for entry in document["categories"]]
        keys += [(entry["id"], entry["file_name"]) for entry in document["images"]]
        if not all(isinstance(number, int | str) for number, _ in keys):
            raise ValueError
        list(document["annotations"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"{file}: not COCO's JSON, which has lists of images, annotations and categories"
        ) from None
    return dict(document)


def _read_entry_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    size = (entry.get("width"), entry.get("height"))
    good = all(isinstance(side, int) and 0 < side < 2**15 for side in size)
    return size if good and size[0] * size[1] <= MAX_MASK_PIXELS else None  # type: ignore[operator,return-value]


def _read_segmentation(segmentation: Any, size: tuple[int, int] | None) -> list[MaskLoader]:
    """A segmentation's mask: polygons, runs, or runs in COCO's own letters; none where none is."""
    if not segmentation:
        return []
    if isinstance(segmentation, dict):
        height, width = (int(side) for side in segmentation["size"])
        if not 0 < height * width <= MAX_MASK_PIXELS:
            raise ValueError("a mask of no possible size")
        counts = segmentation["counts"]
        runs = _decode_runs(counts) if isinstance(counts, str) else [int(n) for n in counts]
        if min(runs, default=0) < 0 or sum(runs) != height * width:
            raise ValueError("runs that do not fill the mask")
        return [partial(_runs_to_mask, runs, (height, width))]
    if size is None:
        raise ValueError("polygons of an image without width and height")
    polygons = [[float(value) for value in polygon] for polygon in segmentation]
    if any(
        len(polygon) < 6 or len(polygon) % 2 or max(map(abs, polygon)) > MAX_COORDINATE_PIXELS
        for polygon in polygons
    ):
        raise ValueError("a polygon of fewer than three corners")
    return [partial(_polygons_to_mask, polygons, size)]


def _polygons_to_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> MaskArray:
    """The pixels whose middles lie in any of the polygons, by the even-odd rule."""
    picked = np.zeros(size[::-1], bool)
    for polygon in polygons:
        picked |= _fill_polygon(np.array(polygon).reshape(-1, 2), *size)
    return picked


def _fill_polygon(corners: NDArray[np.float64], width: int, height: int) -> MaskArray:
    """Where a line along each row of pixels has crossed the polygon an odd number of times."""
    (x, y), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    middles = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= middles) != (y2[:, None] <= middles))
    share = (middles[row] - y[edge]) / (y2[edge] - y[edge])
    at = x[edge] + share * (x2[edge] - x[edge])
    flips = np.zeros((height, width + 1), np.int16)
    np.add.at(flips, (row, np.clip(np.ceil(at - 0.5), 0, width).astype(int)), 1)
    inside: MaskArray = np.cumsum(flips[:, :-1], axis=1, dtype=np.int16) % 2 == 1
    return inside


def _runs_to_mask(runs: Sequence[int], size: tuple[int, int]) -> MaskArray:
    """Runs of off, on, off, ... down the columns."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T


def _decode_runs(text: str) -> list[int]:
    """COCO's compressed runs: five bits a letter from '0', little end first, bit 6 for more.

    From the fourth on a run is stored as its difference from the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("runs that are no letters of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
