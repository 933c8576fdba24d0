"""How far the boxes of two runs overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from camcli.core.types import Box

MAX_BOXES = 500  # of one map; regions are sorted by size, so that those left out are tiny


def compute_boxes_iou(base: Sequence[Box], new: Sequence[Box]) -> float | None:
    """The intersection over union of the areas that the boxes cover; None without any box.

    Boxes of one run may overlap: each pixel counts once. Of each side the first MAX_BOXES count.
    """
    if not base and not new:
        return None
    base, new = base[:MAX_BOXES], new[:MAX_BOXES]
    edges = sorted({x for box in (*base, *new) for x in (box.x1, box.x2)})
    common = union = 0
    for left, right in pairwise(edges):
        one, other = _list_rows(base, left), _list_rows(new, left)
        height_of_all = _sum_lengths(_merge([*one, *other]))
        height_of_both = _sum_lengths(_merge(one)) + _sum_lengths(_merge(other)) - height_of_all
        union += height_of_all * (right - left)
        common += height_of_both * (right - left)
    return common / union


def _list_rows(boxes: Sequence[Box], x: int) -> list[tuple[int, int]]:
    """The rows that boxes cover in column `x`."""
    return [(box.y1, box.y2) for box in boxes if box.x1 <= x < box.x2]


def _merge(rows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for top, bottom in sorted(rows):
        if merged and top <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(bottom, merged[-1][1]))
        else:
            merged.append((top, bottom))
    return merged


def _sum_lengths(rows: Iterable[tuple[int, int]]) -> int:
    return sum(bottom - top for top, bottom in rows)
