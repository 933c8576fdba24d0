"""COCO's JSON: boxes and segmentations; classes have names."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcli.core.errors import UsageError
from camcli.core.run_length import check_runs, decode_runs, runs_to_mask
from camcli.evaluation.datasets.annotations import (
    MAX_COORDINATE_PIXELS,
    Annotation,
    AnnotationOrProblem,
    Corners,
    MaskArray,
    MaskLoader,
    Problem,
)
from camcli.evaluation.datasets.reader import DatasetPaths, DatasetReader
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.evaluation.datasets.text_files import load_text

MAX_MASK_PIXELS = 2**26
MALFORMED_ENTRY_MESSAGE = "image_id, category_id, bbox or segmentation is missing or malformed"


def _find_file(paths: DatasetPaths) -> Path | None:
    """The JSON file of the split. Raises UsageError if there are several to choose from."""
    given = paths.annotations or paths.root
    if given.is_file():
        return given if given.suffix == ".json" else None
    folders = (paths.annotations, paths.root / "annotations", paths.root)
    found = [f for folder in folders if folder for f in sorted(folder.glob("*.json"))]
    instances = [file for file in found if file.stem.startswith("instances")] or found
    chosen = [f for f in instances if paths.split is None or f.stem.endswith(paths.split)]
    if instances and len(chosen) != 1:
        names = ", ".join(file.stem.removeprefix("instances_") for file in instances)
        raise UsageError(f"{paths.root} has annotations of {names}: choose one with --split")
    return chosen[0] if chosen else None


def _read_annotations(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    file = _find_file(paths) or paths.root
    split = file.stem.removeprefix("instances_")
    home = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = (home / split, home / "images" / split, home / "images")
    other = paths.root if paths.annotations and paths.root.is_dir() else home
    return read_coco(file, paths.images or next((f for f in folders if f.is_dir()), other))


def read_coco(file: Path, root: Path) -> Iterator[AnnotationOrProblem]:
    """Read an annotation for each class of each image.

    Crowds become ignored masks, which are neither object nor background. Raises UsageError for a
    file of another form.
    """
    document = _load_coco_json(file)
    names = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
    images = {entry["id"]: entry for entry in document["images"]}
    sizes = {number: _read_entry_size(entry) for number, entry in images.items()}
    objects = _Objects()
    for entry in document["annotations"]:
        try:
            objects.add_entry(entry, names, sizes)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            location = (
                f"annotation {entry.get('id')}" if isinstance(entry, dict) else "an annotation"
            )
            detail = str(error) if isinstance(error, ValueError) else MALFORMED_ENTRY_MESSAGE
            yield Problem("annotation cannot be read", location, detail)
    for key, boxes in objects.boxes.items():
        image, name = key
        file_name = str(images[image]["file_name"])
        yield Annotation(
            image_name=file_name,
            image_path=root / file_name,
            label=name,
            boxes=tuple(boxes),
            size=sizes[image],
            masks=tuple(objects.masks[key]),
            ignored_masks=tuple(objects.crowds[image]),
        )
    annotated = {image for image, _ in objects.boxes}
    for image, entry in images.items():
        if image not in annotated:
            yield Problem("image has no annotation", str(entry["file_name"]))


@dataclass(slots=True)
class _Objects:
    """The boxes and masks of each image and class, and the crowds of each image."""

    boxes: dict[tuple[Any, str], list[Corners]] = field(default_factory=lambda: defaultdict(list))
    masks: dict[tuple[Any, str], list[MaskLoader]] = field(
        default_factory=lambda: defaultdict(list)
    )
    crowds: dict[Any, list[MaskLoader]] = field(default_factory=lambda: defaultdict(list))

    def add_entry(
        self,
        entry: dict[str, Any],
        names: Mapping[Any, str],
        sizes: Mapping[Any, tuple[int, int] | None],
    ) -> None:
        """Add one annotation. A malformed one raises an error and adds nothing."""
        image, name = entry["image_id"], names[entry["category_id"]]
        mask = _read_segmentation(entry.get("segmentation"), sizes[image])
        if entry.get("iscrowd"):
            self.crowds[image] += mask
            return
        x, y, w, h = (float(value) for value in entry["bbox"])
        self.boxes[image, name].append((x, y, x + w, y + h))
        self.masks[image, name] += mask


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
            f"{file}: not COCO's JSON; it needs lists of images, annotations and categories"
        ) from None
    return dict(document)


def _read_entry_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    size = (entry.get("width"), entry.get("height"))
    good = all(isinstance(side, int) and 0 < side < 2**15 for side in size)
    return size if good and size[0] * size[1] <= MAX_MASK_PIXELS else None  # type: ignore[operator,return-value]


def _read_segmentation(segmentation: Any, size: tuple[int, int] | None) -> list[MaskLoader]:
    """The mask of a segmentation, if it has one: polygons, runs, or COCO's compressed runs."""
    if not segmentation:
        return []
    if isinstance(segmentation, dict):
        height, width = (int(side) for side in segmentation["size"])
        if not 0 < height * width <= MAX_MASK_PIXELS:
            raise ValueError("the size of the mask is out of range")
        counts = segmentation["counts"]
        runs = decode_runs(counts) if isinstance(counts, str) else [int(n) for n in counts]
        return [partial(runs_to_mask, check_runs(runs, (height, width)), (height, width))]
    if size is None:
        raise ValueError("polygons need the width and height of the image")
    polygons = [[float(value) for value in polygon] for polygon in segmentation]
    if any(
        len(polygon) < 6 or len(polygon) % 2 or max(map(abs, polygon)) > MAX_COORDINATE_PIXELS
        for polygon in polygons
    ):
        raise ValueError("a polygon needs three corners or more, each inside 1e9 pixels")
    return [partial(_polygons_to_mask, polygons, size)]


def _polygons_to_mask(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> MaskArray:
    """Select the pixels whose centers lie in any polygon, by the even-odd rule."""
    picked = np.zeros(size[::-1], bool)
    for polygon in polygons:
        picked |= _fill_polygon(np.array(polygon).reshape(-1, 2), *size)
    return picked


def _fill_polygon(corners: NDArray[np.float64], width: int, height: int) -> MaskArray:
    """Select the pixels where a line along the row has crossed the polygon an odd time."""
    (x, y), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    middles = np.arange(height) + 0.5
    edge, row = np.nonzero((y[:, None] <= middles) != (y2[:, None] <= middles))
    share = (middles[row] - y[edge]) / (y2[edge] - y[edge])
    at = x[edge] + share * (x2[edge] - x[edge])
    flips = np.zeros((height, width + 1), np.int16)
    np.add.at(flips, (row, np.clip(np.ceil(at - 0.5), 0, width).astype(int)), 1)
    inside: MaskArray = np.cumsum(flips[:, :-1], axis=1, dtype=np.int16) % 2 == 1
    return inside


register_reader(
    DatasetReader(
        name="COCO",
        recognized_by="COCO's *.json",
        priority=60,
        detect=lambda paths: _find_file(paths) is not None,
        read_annotations=_read_annotations,
    )
)
