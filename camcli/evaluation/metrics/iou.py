"""IoU of boxes as the localization papers compute it, and the type of each error."""

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
    """Areas of boxes (N, 4), of other boxes (M, 4), and of their intersections (N, M).

    A side is x2 - x1 + `pixel`. Use 1 if the second corner is the last pixel, as the papers' code
    assumes even for corners past it; use 0 for half-open boxes.
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
    """Classify the top-1 localization of a box (4,) with true boxes (T, 4), as TS-CAM does.

    right: the class is right and IoU > 0.5 with a true box. class: the class is wrong.
    multi-instance: the box covers more than 0.3 of several true boxes. For the true box with the
    highest IoU, part: it contains more than half of the box; more: the box contains at least 0.7 of
    it; wrong: neither. Source: arXiv 2103.14862, table 5, and its code.
    """
    if rank:
        return "class"
    size, true_sizes, shared = compute_intersections(box[None], true_boxes)
    overlap = shared[0] / (size[0] + true_sizes - shared[0])
    best = int(overlap.argmax())
    if overlap[best] > 0.5:
        return "right"
    if ((shared[0] / true_sizes) > 0.3).sum() > 1:
        return "multi-instance"
    if shared[0, best] / size[0] > 0.5:
        return "part"
    return "more" if shared[0, best] / true_sizes[best] >= 0.7 else "wrong"
