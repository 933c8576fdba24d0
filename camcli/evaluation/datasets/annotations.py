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
Picked = NDArray[np.bool_]
Mask = Callable[[], Picked]  # (H, W) of the whole image, made when it is asked for

FAR = 1e9  # pixels from the image at which a corner is no corner

Kind = Literal[
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


@dataclass(frozen=True, slots=True)
class Truth:
    """Where the objects of one class are in one image; `size` (W, H) is what boxes refer to.

    `label` is a class index, or a name that the model's labels know.
    """

    image: str
    path: Path
    label: int | str
    boxes: tuple[Corners, ...]
    size: tuple[int, int] | None = None
    masks: tuple[Mask, ...] = ()
    ignored: tuple[Mask, ...] = ()


def code(image: str) -> int:
    """A number that goes by an image's name alone, whatever other images there are."""
    return zlib.crc32(image.encode(errors="surrogateescape"))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be evaluated, where it is, and more of it."""

    kind: Kind
    where: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


Found = Truth | Problem


def sound(found: Iterable[Found], *, sized: bool) -> Iterator[Found]:
    """What a reader found, less images and boxes that cannot be: each of those is a Problem.

    With `sized` it is enough that an image's size is known.
    """
    for item in found:
        yield from (item,) if isinstance(item, Problem) else _sound(item, sized)


def _sound(truth: Truth, sized: bool) -> Iterator[Found]:
    if not os.path.isfile(truth.path) and not (sized and truth.size):
        yield Problem("image is missing", truth.image, str(truth.path))
        return
    good = tuple(box for box in truth.boxes if _proper(box))
    for box in set(truth.boxes) - set(good):
        yield Problem("box is inverted or empty", truth.image, _shown(box))
    if good or truth.masks:
        yield replace(truth, boxes=good)
    elif not truth.boxes:
        yield Problem("image has no annotation", truth.image)


def _proper(box: Corners) -> bool:
    return all(abs(value) < FAR for value in box) and box[0] < box[2] and box[1] < box[3]


def _shown(box: Iterable[float]) -> str:
    return " ".join(f"{value:g}" for value in box)


@dataclass(frozen=True, slots=True)
class Placed:
    """The truth on the canvas of side S: boxes twice, as two protocols have them, and pixels.

    truncated (T, 4): scaled, made whole numbers (wsolevaluation). fitted (T, 4): those clipped to
    [0, S - 1] (TS-CAM). boxes (T, 4): pixels of the image of `size` (W, H). foreground and
    background (S, S) where there are masks; what is in neither is not counted.
    """

    fitted: NDArray[np.int64]
    truncated: NDArray[np.int64]
    boxes: NDArray[np.float64]
    size: tuple[int, int]
    foreground: Picked | None = None
    background: Picked | None = None


def place(truth: Truth, size: tuple[int, int], side: int) -> tuple[Placed | None, list[Problem]]:
    """The truth of an image of that size (W, H) on a canvas, and what of it cannot be placed.

    Boxes around its masks stand for boxes where a data set has only masks. Raises ImageError for
    a mask file that cannot be read.
    """
    own = truth.size or size
    if not _alike(own, size):
        detail = f"{own[0]} x {own[1]}, the image is {size[0]} x {size[1]}"
        return None, [Problem("size is not the image's", truth.image, detail)]
    given = np.array(truth.boxes, np.float64).reshape(-1, 4)
    inside = (given[:, :2] < own).all(axis=1) & (given[:, 2:] > 0).all(axis=1)
    problems = [
        Problem("box is outside the image", truth.image, _shown(box)) for box in given[~inside]
    ]
    given = np.clip(given[inside], 0, [*own, *own])
    foreground, around, empty = _covered(truth.masks, own, side)
    problems += [Problem("mask is empty", truth.image)] * empty
    given = given if len(given) else around
    if not len(given):
        return None, problems
    # Times first, for 55 * 224 / 55 is 224 and 55 * (224 / 55) is less.
    truncated = (given * side / [*own, *own]).astype(np.int64)
    boxes = given * [*size, *size] / [*own, *own]
    fitted = np.clip(truncated, 0, side - 1)
    if not foreground.any():  # no masks, or so small that no pixel of the canvas shows them
        return Placed(fitted, truncated, boxes, size), problems
    ignored, _, _ = _covered(truth.ignored, own, side)
    return Placed(fitted, truncated, boxes, size, foreground, ~(foreground | ignored)), problems


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are of one shape, so that one image may have both."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < 0.05


def _covered(
    masks: Iterable[Mask], size: tuple[int, int], side: int
) -> tuple[Picked, NDArray[np.float64], int]:
    """All masks together on the canvas, the box around each, and how many are empty.

    One is made at a time: a picture may have hundreds, each of its full size.
    """
    together = np.zeros((side, side), bool)
    boxes, empty = [], 0
    for mask in masks:
        picked = mask()
        if picked.any():
            together |= _nearest(picked, side)
            boxes.append(_around(picked, size))
        else:
            empty += 1
    return together, np.array(boxes, np.float64).reshape(-1, 4), empty


def _around(mask: Picked, size: tuple[int, int]) -> Corners:
    """The box around a mask, in pixels of an image of that size (W, H)."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    across, down = size[0] / mask.shape[1], size[1] / mask.shape[0]
    return (
        float(columns[0] * across),
        float(rows[0] * down),
        float((columns[-1] + 1) * across),
        float((rows[-1] + 1) * down),
    )


def _nearest(mask: Picked, side: int) -> Picked:
    """Nearest neighbour as OpenCV picks it: pixel floor(i h / S)."""
    rows, columns = (np.arange(side) * edge // side for edge in mask.shape)
    return mask[np.ix_(rows, columns)]
