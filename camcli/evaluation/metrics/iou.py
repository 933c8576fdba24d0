"""How boxes meet: IoU as the localisation papers count it, and what went wrong where it is low."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

BoxArray = NDArray[np.floating] | NDArray[np.integer]
Float64Array = NDArray[np.float64]

ErrorType = Literal["right", "class", "multi-instance", "part", "more", "wrong"]
ERROR_TYPES: tuple[ErrorType, ...] = ("right", "class", "multi-instance", "part", "more", "wrong")


def compute_intersections(
    boxes: BoxArray, other_boxes: BoxArray, pixel: float = 1
) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Areas of one (N, 4), of other (M, 4), and of what they share (N, M).

    A side is x2 - x1 + `pixel`: 1 where corners are taken as pixels, as the papers' code does
    even for corners that lie past the last pixel; 0 for half-open boxes.
    """
    low = np.maximum(boxes[:, None, :2], other_boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], other_boxes[None, :, 2:])
    shared = np.prod(np.maximum(high - low + pixel, 0), axis=2, dtype=np.float64)
    areas = (
        np.prod(b[:, 2:] - b[:, :2] + pixel, axis=1, dtype=np.float64) for b in (boxes, other_boxes)
    )
    first, second = areas
    return first, second, shared


def iou(boxes: BoxArray, other_boxes: BoxArray, pixel: float = 1) -> Float64Array:
    """Intersection over union: (N, 4), (M, 4) -> (N, M)."""
    first, second, shared = compute_intersections(boxes, other_boxes, pixel)
    return shared / (first[:, None] + second[None] - shared)


def classify_error(box: BoxArray, true_boxes: BoxArray, rank: int) -> ErrorType:
    """Why the top-1 localisation of an image is right or not, as TS-CAM's table has it.

    right: the class is, and IoU > 0.5 with a truth. class: the class is not. multi-instance: the
    box has over 0.3 of more than one truth. Else by the truth that it meets best, part: over half
    of the box is on it; more: at least 0.7 of it is in the box; wrong: neither. (4,), (T, 4).
    Source: arXiv 2103.14862, table 5, and its code.
    """
    if rank:
        return "class"
    size, truth_sizes, shared = compute_intersections(box[None], true_boxes)
    overlap = shared[0] / (size[0] + truth_sizes - shared[0])
    best = int(overlap.argmax())
    if overlap[best] > 0.5:
        return "right"
    if ((shared[0] / truth_sizes) > 0.3).sum() > 1:
        return "multi-instance"
    if shared[0, best] / size[0] > 0.5:
        return "part"
    return "more" if shared[0, best] / truth_sizes[best] >= 0.7 else "wrong"
