"""Intersection over union of boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoxArray = NDArray[np.floating] | NDArray[np.integer]
Float64Array = NDArray[np.float64]


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
