"""The type of each localization error."""

from __future__ import annotations

from typing import Literal

from camcli.core.box_iou import BoxArray, compute_intersections

ErrorType = Literal["right", "class", "multi-instance", "part", "more", "wrong"]
ERROR_TYPES: tuple[ErrorType, ...] = ("right", "class", "multi-instance", "part", "more", "wrong")


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
