"""The evaluator of wsolevaluation and the box of TS-CAM, written again from their papers.

Like the originals, it searches contours at each of a thousand thresholds, which is slow.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.int64]
Map = NDArray[np.floating[Any]]
THRESHOLDS = np.arange(0, 1, 0.001)


def contours(grey: NDArray[np.uint8], level: int) -> Any:
    """OpenCV's contours of q > level."""
    _, above = cv2.threshold(grey[:, :, None], level, 255, cv2.THRESH_BINARY)
    return cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]


def bounding(contour: Any) -> tuple[int, int, int, int]:
    x, y, w, h = cv2.boundingRect(contour)
    return x, y, x + w, y + h


def boxes_at(shown: Map, threshold: float, multi: bool) -> Boxes:
    grey = (shown * 255).astype(np.uint8)
    height, width = grey.shape
    found = contours(grey, int(threshold * grey.max()))
    if not found:
        return np.array([[0, 0, 0, 0]])
    kept = found if multi else [max(found, key=cv2.contourArea)]
    return np.minimum([bounding(c) for c in kept], [width, height, width - 1, height - 1])


def overlap(one: NDArray[Any], other: NDArray[Any]) -> float:
    """IoU of two boxes with +1 widths."""
    x1, y1 = max(one[0], other[0]), max(one[1], other[1])
    x2, y2 = min(one[2], other[2]), min(one[3], other[3])
    shared = max(0, x2 - x1 + 1) * max(0, y2 - y1 + 1)

    def area(box: NDArray[Any]) -> float:
        return float((box[2] - box[0] + 1) * (box[3] - box[1] + 1))

    return float(shared / (area(one) + area(other) - shared))


def overlaps(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """All pairs at once, as the original does it: (N, 4), (M, 4) -> (N, M)."""
    a, b = one[:, None], other[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(0, high - low + 1).prod(axis=2)
    areas = [(x[..., 2] - x[..., 0] + 1) * (x[..., 3] - x[..., 1] + 1) for x in (a, b)]
    result: NDArray[np.float64] = shared / (areas[0] + areas[1] - shared)
    return result


def scaled(box: tuple[float, ...], size: tuple[int, int], side: int = 224) -> list[int]:
    """A truth's corners at the evaluator's size, cut to whole numbers."""
    return [int(value * side / size[i % 2]) for i, value in enumerate(box)]


def correct(
    shown: Map, truths: NDArray[Any], multi: bool, deltas: tuple[float, ...] = (0.3, 0.5, 0.7)
) -> NDArray[np.bool_]:
    """At which of the thousand thresholds a map is right, for each IoU: (D, 1000)."""
    found = [boxes_at(shown, t, multi) for t in THRESHOLDS]
    met = overlaps(np.concatenate(found), truths).max(axis=1)
    ends = np.cumsum([len(boxes) for boxes in found])
    best = np.array([part.max() for part in np.split(met, ends[:-1])])
    return np.array([best >= delta for delta in deltas])


def max_box_acc(maps: list[Map], truths: list[NDArray[Any]], multi: bool) -> float:
    """MaxBoxAcc (single, 0.5), or MaxBoxAccV2 (multi, 0.3, 0.5 and 0.7)."""
    deltas = (0.3, 0.5, 0.7) if multi else (0.5,)
    right = [correct(m, t, multi, deltas) for m, t in zip(maps, truths, strict=True)]
    return float(np.mean(right, axis=0).max(axis=1).mean())


def tscam_box(shown: Map, threshold: float) -> tuple[int, int, int, int]:
    grey = (shown * 255).astype(np.uint8)
    found = contours(grey, int(threshold * grey.max()))
    return bounding(max(found, key=cv2.contourArea)) if found else (0, 0, 1, 1)
