"""What a data set says of its images: the records that every reader yields, and a first check.

Coordinates are pixels of the stored image, x1 < x2 and y1 < y2, as each data set has them.
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
MaskLoader = Callable[[], MaskArray]  # (H, W) of the whole image, made when it is asked for

MAX_COORDINATE_PIXELS = 1e9  # pixels from the image at which a corner is no corner

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
]


FAILURE_KINDS: tuple[ProblemKind, ...] = (
    "image is missing",
    "image cannot be read",
    "map is missing",
    "map cannot be read",
)


@dataclass(frozen=True, slots=True)
class Annotation:
    """Where the objects of one class are in one image; `size` (W, H) is what boxes refer to.

    `label` is a class index, or a name that the model's labels know.
    """

    image_name: str
    image_path: Path
    label: int | str
    boxes: tuple[Corners, ...]
    size: tuple[int, int] | None = None
    masks: tuple[MaskLoader, ...] = ()
    ignored_masks: tuple[MaskLoader, ...] = ()


def hash_image_name(image_name: str) -> int:
    """A number that goes by an image's name alone, whatever other images there are."""
    return zlib.crc32(image_name.encode(errors="surrogateescape"))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be evaluated, where it is, and more of it."""

    kind: ProblemKind
    location: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


AnnotationOrProblem = Annotation | Problem


def iter_valid_annotations(
    annotations: Iterable[AnnotationOrProblem], *, allow_missing_images: bool
) -> Iterator[AnnotationOrProblem]:
    """What a reader found, less images and boxes that cannot be: each of those is a Problem.

    With `sized` it is enough that an image's size is known.
    """
    for item in annotations:
        yield from (
            (item,)
            if isinstance(item, Problem)
            else _validate_annotation(item, allow_missing_images)
        )


def _validate_annotation(truth: Annotation, sized: bool) -> Iterator[AnnotationOrProblem]:
    if not os.path.isfile(truth.image_path) and not (sized and truth.size):
        yield Problem("image is missing", truth.image_name, str(truth.image_path))
        return
    good = tuple(box for box in truth.boxes if _is_valid_box(box))
    for box in set(truth.boxes) - set(good):
        yield Problem("box is inverted or empty", truth.image_name, _format_box(box))
    if good or truth.masks:
        yield replace(truth, boxes=good)
    elif not truth.boxes:
        yield Problem("image has no annotation", truth.image_name)


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
    """The truth on the canvas of side S: boxes twice, as two protocols have them, and pixels.

    truncated (T, 4): scaled, made whole numbers (wsolevaluation). fitted (T, 4): those clipped to
    [0, S - 1] (TS-CAM). boxes (T, 4): pixels of the image of `size` (W, H). foreground and
    background (S, S) where there are masks; what is in neither is not counted.
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
    """The truth of an image of that size (W, H) on a canvas, and what of it cannot be placed.

    Boxes around its masks stand for boxes where a data set has only masks. Raises ImageError for
    a mask file that cannot be read.
    """
    own = annotation.size or size
    if not _has_same_aspect(own, size):
        detail = f"{own[0]} x {own[1]}, the image is {size[0]} x {size[1]}"
        return None, [Problem("size is not the image's", annotation.image_name, detail)]
    given = np.array(annotation.boxes, np.float64).reshape(-1, 4)
    inside = (given[:, :2] < own).all(axis=1) & (given[:, 2:] > 0).all(axis=1)
    problems = [
        Problem("box is outside the image", annotation.image_name, _format_box(box))
        for box in given[~inside]
    ]
    given = np.clip(given[inside], 0, [*own, *own])
    foreground, around, empty = _combine_masks(annotation.masks, own, side)
    problems += [Problem("mask is empty", annotation.image_name)] * empty
    given = given if len(given) else around
    if not len(given):
        return None, problems
    # Times first, for 55 * 224 / 55 is 224 and 55 * (224 / 55) is less.
    truncated = (given * side / [*own, *own]).astype(np.int64)
    boxes = given * [*size, *size] / [*own, *own]
    fitted = np.clip(truncated, 0, side - 1)
    if not foreground.any():  # no masks, or so small that no pixel of the canvas shows them
        return CanvasAnnotation(fitted, truncated, boxes, size), problems
    ignored, _, _ = _combine_masks(annotation.ignored_masks, own, side)
    return CanvasAnnotation(
        fitted, truncated, boxes, size, foreground, ~(foreground | ignored)
    ), problems


def _has_same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are of one shape, so that one image may have both."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < 0.05


def _combine_masks(
    masks: Iterable[MaskLoader], size: tuple[int, int], side: int
) -> tuple[MaskArray, NDArray[np.float64], int]:
    """All masks together on the canvas, the box around each, and how many are empty.

    One is made at a time: a picture may have hundreds, each of its full size.
    """
    together = np.zeros((side, side), bool)
    boxes, empty = [], 0
    for mask in masks:
        picked = mask()
        if picked.any():
            together |= _resize_mask(picked, side)
            boxes.append(_mask_to_box(picked, size))
        else:
            empty += 1
    return together, np.array(boxes, np.float64).reshape(-1, 4), empty


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
    """Nearest neighbour as OpenCV picks it: pixel floor(i h / S)."""
    rows, columns = (np.arange(side) * edge // side for edge in mask.shape)
    return mask[np.ix_(rows, columns)]
