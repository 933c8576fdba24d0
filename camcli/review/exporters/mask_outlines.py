"""Masks of results.jsonl as COCO has them: run lengths, or polygons along the edges of pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcli.core.box_iou import iou
from camcli.core.connected_regions import label_regions
from camcli.core.run_length import decode_mask, encode_mask
from camcli.core.types import MAX_READABLE_PIXELS, Box

MaskArray = NDArray[np.bool_]
Polygon = list[int]  # x1, y1, x2, y2, ... of the corners, in pixels
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up


def load_box_masks(mask: Mapping[str, Any], boxes: Sequence[Box]) -> list[MaskArray]:
    """The part of a stored mask (H, W) that belongs to each box.

    A connected region belongs to the box that fits it best. Raises ValueError for a mask whose
    run lengths are not valid.
    """
    height, width = mask["size"]
    if height * width > MAX_READABLE_PIXELS:
        raise ValueError("the mask is too large")
    whole = decode_mask(mask["counts"], (height, width))
    if len(boxes) == 1:
        return [whole]
    regions = label_regions(whole)
    corners = np.array([(box.x1, box.y1, box.x2, box.y2) for box in boxes])
    bounds = [(cols.start, rows.start, cols.stop, rows.stop) for rows, cols in regions.extents]
    # One region at a time: a mask of noise has so many that all pairs would not fit into memory.
    best = [int(iou(np.array([own]), corners, pixel=0).argmax()) for own in bounds]
    owners = np.array([-1, *best])
    return [owners[regions.labels] == number for number in range(len(boxes))]


def mask_to_runs(mask: MaskArray) -> dict[str, Any]:
    """The mask in COCO's compressed run-length encoding."""
    return dict(encode_mask(mask))


def mask_to_polygons(mask: MaskArray) -> tuple[list[Polygon], int]:
    """The outlines of a mask along the edges of its pixels, and the number of holes.

    Polygons of COCO have no holes, so the holes are filled. Pixels that touch only at a corner get
    outlines of their own.
    """
    outlines, hole_count = [], 0
    for corners in _iter_loops(_list_edges(mask)):
        if _is_clockwise(corners):
            outlines.append([value for corner in corners for value in corner])
        else:
            hole_count += 1
    return outlines, hole_count


def _list_edges(mask: MaskArray) -> dict[tuple[int, int, int], None]:
    """The edges between inside and outside: start (x, y) and step; the inside is on the right."""
    padded = np.pad(mask, 1)
    edges: dict[tuple[int, int, int], None] = {}
    # For each step: the pixel across the edge, and the corner of the pixel where the edge starts.
    sides = (((-1, 0), (0, 0)), ((0, 1), (1, 0)), ((1, 0), (1, 1)), ((0, -1), (0, 1)))
    for step, ((down, right), (x, y)) in enumerate(sides):
        neighbours = np.roll(padded, (-down, -right), axis=(0, 1))[1:-1, 1:-1]
        rows, columns = np.nonzero(mask & ~neighbours)
        starts = zip((columns + x).tolist(), (rows + y).tolist(), strict=True)
        edges.update(dict.fromkeys((*start, step) for start in starts))
    return edges


def _iter_loops(edges: dict[tuple[int, int, int], None]) -> Iterator[list[tuple[int, int]]]:
    """The corners of each closed outline; uses up the edges."""
    while edges:
        first, _ = edges.popitem()
        edges[first] = None
        edge, corners = first, []
        while True:
            step = edge[2]
            x, y = edge[0] + STEPS[step][0], edge[1] + STEPS[step][1]
            # Turn right first: then pixels that touch at a corner stay apart.
            turns = ((step + turn) % 4 for turn in (1, 0, 3))
            edge = next((x, y, turn) for turn in turns if (x, y, turn) in edges)
            if edge[2] != step:
                corners.append((x, y))
            del edges[edge]
            if edge == first:
                break
        yield corners


def _is_clockwise(corners: Sequence[tuple[int, int]]) -> bool:
    """Whether the outline goes around the inside, not around a hole: y grows downwards."""
    following = [*corners[1:], corners[0]]
    doubled = sum(x * y2 - x2 * y for (x, y), (x2, y2) in zip(corners, following, strict=True))
    return doubled > 0
