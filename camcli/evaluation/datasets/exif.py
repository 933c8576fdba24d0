"""Annotations of stored pixels, turned with the image as EXIF says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from PIL.Image import Transpose

from camcli.evaluation.datasets.annotations import Corners, Mask, Picked, Truth

Turn = Callable[[Picked], Picked]

# What each turn does to an array of rows and columns.
TURNS: Mapping[Transpose, Turn] = {
    Transpose.FLIP_LEFT_RIGHT: lambda a: a[:, ::-1],
    Transpose.ROTATE_180: lambda a: a[::-1, ::-1],
    Transpose.FLIP_TOP_BOTTOM: lambda a: a[::-1],
    Transpose.TRANSPOSE: lambda a: a.T,
    Transpose.ROTATE_270: lambda a: np.rot90(a, -1),
    Transpose.TRANSVERSE: lambda a: a[::-1, ::-1].T,
    Transpose.ROTATE_90: lambda a: np.rot90(a, 1),
}
# What each does to the point (x, y) of a stored image of w x h.
POINTS: Mapping[Transpose, Callable[[float, float, float, float], tuple[float, float]]] = {
    Transpose.FLIP_LEFT_RIGHT: lambda x, y, w, h: (w - x, y),
    Transpose.ROTATE_180: lambda x, y, w, h: (w - x, h - y),
    Transpose.FLIP_TOP_BOTTOM: lambda x, y, w, h: (x, h - y),
    Transpose.TRANSPOSE: lambda x, y, w, h: (y, x),
    Transpose.ROTATE_270: lambda x, y, w, h: (h - y, x),
    Transpose.TRANSVERSE: lambda x, y, w, h: (h - y, w - x),
    Transpose.ROTATE_90: lambda x, y, w, h: (y, w - x),
}
SIDEWAYS = {
    Transpose.TRANSPOSE,
    Transpose.ROTATE_270,
    Transpose.TRANSVERSE,
    Transpose.ROTATE_90,
}


def upright(truth: Truth, turn: Transpose | None, size: tuple[int, int]) -> Truth:
    """The truth of an image that is turned to be upright, `size` (W, H) once it is.

    A truth whose own size is the upright one, and could not be the stored one, is upright already.
    """
    if turn is None:
        return truth
    stored = size[::-1] if turn in SIDEWAYS else size
    if truth.size == size != stored:
        return truth
    width, height = truth.size or stored
    boxes = tuple(_turned(box, turn, width, height) for box in truth.boxes)
    masks, ignored = (
        tuple(_with(mask, TURNS[turn]) for mask in own) for own in (truth.masks, truth.ignored)
    )
    sized = (height, width) if turn in SIDEWAYS else (width, height)
    return replace(truth, boxes=boxes, masks=masks, ignored=ignored, size=sized)


def _turned(box: Corners, turn: Transpose, width: float, height: float) -> Corners:
    (x1, y1), (x2, y2) = (POINTS[turn](x, y, width, height) for x, y in (box[:2], box[2:]))
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _with(mask: Mask, turn: Turn) -> Mask:
    return partial(_made, mask, turn)


def _made(mask: Mask, turn: Turn) -> Picked:
    return turn(mask())
