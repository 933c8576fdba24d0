"""Annotations: the records that every data set reader yields, their checks, and their placing.

Coordinates are pixels of the stored image, with x1 < x2 and y1 < y2.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Corners = tuple[float, float, float, float]
MaskArray = NDArray[np.bool_]
MaskLoader = Callable[[], MaskArray]  # (H, W) of the whole image, loaded when needed

MAX_COORDINATE_PIXELS = 1e9  # a corner farther away is an error in the data

ProblemKind = Literal[
    "image is missing",
    "image cannot be read",
    "image has no annotation",
    "annotation cannot be read",
    "box is inverted or empty",
    "box is outside the image",
    "mask is empty",
    "size is not the image's",
    "class is unknown to the model",
    "map is missing",
    "map cannot be read",
    "map is not finite",
    "several maps",
]


FAILURE_KINDS: tuple[ProblemKind, ...] = (
    "image is missing",
    "image cannot be read",
    "map is missing",
    "map cannot be read",
    "map is not finite",
    "several maps",
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """The places of the objects of one class in one image: boxes, masks, or both.

    `label` is a class index or a class name. Boxes refer to an image of `size` (W, H); None stands
    for the size of the stored image. Pixels of `ignored_masks` are neither object nor background.
    """

    image_name: str
    image_path: Path
    label: int | str
    boxes: tuple[Corners, ...]
    size: tuple[int, int] | None = None
    masks: tuple[MaskLoader, ...] = ()
    ignored_masks: tuple[MaskLoader, ...] = ()


def hash_image_name(image_name: str) -> int:
    """A number that depends only on the name of the image, not on the other images."""
    return zlib.crc32(image_name.encode(errors="surrogateescape"))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be evaluated: its kind, its location, and a detail."""

    kind: ProblemKind
    location: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


AnnotationOrProblem = Annotation | Problem


def iter_valid_annotations(
    annotations: Iterable[AnnotationOrProblem], *, allow_missing_images: bool
) -> Iterator[AnnotationOrProblem]:
    """Yield what a reader found, with a problem in place of each missing image and invalid box.

    With `allow_missing_images` an annotation that has the image's size needs no image file.
    """
    for item in annotations:
        yield from (
            (item,)
            if isinstance(item, Problem)
            else _validate_annotation(item, allow_missing_images)
        )


def _validate_annotation(
    annotation: Annotation, allow_missing_image: bool
) -> Iterator[AnnotationOrProblem]:
    name = annotation.image_name
    if not os.path.isfile(annotation.image_path) and not (allow_missing_image and annotation.size):
        yield Problem("image is missing", name, str(annotation.image_path))
        return
    valid = tuple(box for box in annotation.boxes if _is_valid_box(box))
    for box in set(annotation.boxes) - set(valid):
        yield Problem("box is inverted or empty", name, _format_box(box))
    if valid or annotation.masks:
        yield replace(annotation, boxes=valid)
    elif not annotation.boxes:
        yield Problem("image has no annotation", name)


def _is_valid_box(box: Corners) -> bool:
    return (
        all(abs(value) < MAX_COORDINATE_PIXELS for value in box)
        and box[0] < box[2]
        and box[1] < box[3]
    )


def _format_box(box: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in box)


@dataclass(frozen=True, slots=True)
class CanvasAnnotation:
    """An annotation on the canvas of side S: boxes in three forms, and masks.

    scaled_boxes (T, 4): scaled to the canvas and truncated to whole numbers (wsolevaluation).
    clipped_boxes (T, 4): the same, clipped to [0, S - 1] (TS-CAM). image_boxes (T, 4): pixels of
    the image of `image_size` (W, H). foreground and background (S, S), if there are masks; pixels
    in neither are ignored.
    """

    clipped_boxes: NDArray[np.int64]
    scaled_boxes: NDArray[np.int64]
    image_boxes: NDArray[np.float64]
    image_size: tuple[int, int]
    foreground: MaskArray | None = None
    background: MaskArray | None = None


def annotation_to_canvas(
    annotation: Annotation, size: tuple[int, int], side: int
) -> tuple[CanvasAnnotation | None, list[Problem]]:
    """Place the annotation of an image of that size (W, H) on a canvas, and list the problems.

    Returns None in place of an annotation without any usable box. Masks without boxes get a box
    around each mask. Raises ImageError for a mask file that cannot be read.
    """
    own = annotation.size or size
    if not _has_same_aspect(own, size):
        detail = f"{own[0]} x {own[1]}, the image is {size[0]} x {size[1]}"
        return None, [Problem("size is not the image's", annotation.image_name, detail)]
    boxes, problems = _clip_boxes(annotation, own)
    foreground, mask_boxes, empty_count = _combine_masks(annotation.masks, own, side)
    problems += [Problem("mask is empty", annotation.image_name)] * empty_count
    boxes = boxes if len(boxes) else mask_boxes
    if not len(boxes):
        return None, problems
    # Multiply first: 55 * 224 / 55 is exactly 224, but 55 * (224 / 55) is less.
    scaled = (boxes * side / [*own, *own]).astype(np.int64)
    placed = CanvasAnnotation(
        clipped_boxes=np.clip(scaled, 0, side - 1),
        scaled_boxes=scaled,
        image_boxes=boxes * [*size, *size] / [*own, *own],
        image_size=size,
    )
    if not foreground.any():  # no masks, or masks smaller than a pixel of the canvas
        return placed, problems
    ignored, _, _ = _combine_masks(annotation.ignored_masks, own, side)
    return replace(placed, foreground=foreground, background=~(foreground | ignored)), problems


def _clip_boxes(
    annotation: Annotation, size: tuple[int, int]
) -> tuple[NDArray[np.float64], list[Problem]]:
    """The boxes (T, 4) clipped to the image, and a problem for each box outside it."""
    boxes = np.array(annotation.boxes, np.float64).reshape(-1, 4)
    inside = (boxes[:, :2] < size).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    problems = [
        Problem("box is outside the image", annotation.image_name, _format_box(box))
        for box in boxes[~inside]
    ]
    return np.clip(boxes[inside], 0, [*size, *size]), problems


def _has_same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have the same aspect ratio, so that one image may have both."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < 0.05


def _combine_masks(
    masks: Iterable[MaskLoader], size: tuple[int, int], side: int
) -> tuple[MaskArray, NDArray[np.float64], int]:
    """The union of all masks on the canvas, the box around each, and the number of empty masks.

    Masks are loaded one at a time, because an image may have hundreds in full size.
    """
    union = np.zeros((side, side), bool)
    boxes, empty_count = [], 0
    for load_mask in masks:
        mask = load_mask()
        if mask.any():
            union |= _resize_mask(mask, side)
            boxes.append(_mask_to_box(mask, size))
        else:
            empty_count += 1
    return union, np.array(boxes, np.float64).reshape(-1, 4), empty_count


def _mask_to_box(mask: MaskArray, size: tuple[int, int]) -> Corners:
    """The box around a mask, in pixels of an image of that size (W, H)."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    across, down = size[0] / mask.shape[1], size[1] / mask.shape[0]
    return (
        float(columns[0] * across),
        float(rows[0] * down),
        float((columns[-1] + 1) * across),
        float((rows[-1] + 1) * down),
    )


def _resize_mask(mask: MaskArray, side: int) -> MaskArray:
    """Resize by nearest neighbour as OpenCV does: pixel i takes the value at floor(i h / S)."""
    rows, columns = (np.arange(side) * edge // side for edge in mask.shape)
    return mask[np.ix_(rows, columns)]
