"""Every region of a map at every grey level, in one pass instead of 255 searches.

A map m becomes grey levels q = trunc(255 m). Its regions at level t are the 8-connected components
of {q > t}; the component tree has them for all t. Holes are the 4-connected regions of the inverted
map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from camcli.evaluation.metrics.component_tree import (
    LEVEL_COUNT,
    ComponentTree,
    GrayMap,
    Int16Array,
    Int32Array,
    count_holes,
    create_component_tree,
)


@dataclass(frozen=True, slots=True)
class Regions:
    """The boxes of a map's regions at each level: x0, y0, x1, y1, half-open.

    largest_boxes (255, 4): the region whose outer contour encloses the largest area; zeros without
    a region. all_boxes (N, 4) at box_levels (N,): all regions, and the contours of their holes.
    """

    largest_boxes: Int16Array
    all_boxes: Int16Array
    box_levels: Int32Array


def quantize_map(heatmap: NDArray[np.floating]) -> GrayMap:
    """Grey levels of a map in [0, 1]: trunc(255 m), as in the 8-bit images of the protocols."""
    return (heatmap * 255).astype(np.uint8)


def find_regions(grey: GrayMap) -> Regions:
    """Find all regions of a grey map (H, W) at all levels.

    The area of a region is that inside the contour through its pixel centers (OpenCV's contourArea,
    which wsolevaluation and TS-CAM compare). Of equal areas the last in reading order wins, which
    is the first in OpenCV's list of contours.
    """
    land = create_component_tree(grey, diagonal=True)
    rims, rim_level = _find_hole_rims(grey) if count_holes(grey, land).any() else _NO_HOLE_RIMS
    boxes, level = _find_alive_boxes(land, slice(None))
    return Regions(
        _find_largest_boxes(grey, land, rims, rim_level),
        np.concatenate([boxes, rims]),
        np.concatenate([level, rim_level]),
    )


_NO_HOLE_RIMS = np.zeros((0, 4), np.int16), np.zeros(0, np.int32)


def _find_hole_rims(grey: GrayMap) -> tuple[Int16Array, Int32Array]:
    """The boxes of the contours around holes (N, 4), and their levels (N,)."""
    # The frame of the inverted map is the highest peak; it is not a hole.
    sea = create_component_tree(np.pad(255 - grey, 1, constant_values=255), diagonal=False)
    boxes, level = _find_alive_boxes(sea, slice(0, -1))
    return boxes + np.array(
        [-2, -2, 0, 0], np.int16
    ), 254 - level  # without the frame, and one pixel around the hole


def _find_alive_boxes(tree: ComponentTree, which: slice) -> tuple[Int16Array, Int32Array]:
    """The boxes (N, 4) of all regions of these peaks, and their levels (N,)."""
    peak, level = np.nonzero(tree.alive_mask[which])
    return _bounds_to_boxes(tree.bounds[:, peak, level]), level.astype(np.int32)


def _find_largest_boxes(
    grey: GrayMap, tree: ComponentTree, rims: Int16Array, rim_level: Int32Array
) -> Int16Array:
    """The box of the region with the largest enclosed area at each level (255, 4)."""
    alive = tree.alive_mask
    area = np.where(alive, tree.area, -1)
    best = area.argmax(axis=0)
    level = np.arange(LEVEL_COUNT)
    boxes = _bounds_to_boxes(tree.bounds[:, best, level])
    # With its holes a region encloses more than its area, but not more than its box.
    holed = np.bincount(rim_level, minlength=LEVEL_COUNT) > 0
    within = 2 * np.prod(-tree.bounds[2:].astype(np.int32) - tree.bounds[:2] - 1, axis=0)
    rival = alive & (np.where(holed, within, tree.area) >= area[best, level])
    for t in np.flatnonzero(rival.sum(axis=0) > 1):
        of_rivals = _bounds_to_boxes(tree.bounds[:, rival[:, t], t])
        at_most = area[rival[:, t], t] + _compute_max_hole_areas(of_rivals, rims[rim_level == t])
        left = np.flatnonzero(at_most >= area[best[t], t])
        boxes[t] = of_rivals[left[0]] if len(left) == 1 else _search_largest_box(grey > t)
    boxes[~alive.any(axis=0)] = 0
    return boxes


def _bounds_to_boxes(bounds: Int16Array) -> Int16Array:
    """Bounds x0, y0, -x1, -y1 (4, N) as boxes x0, y0, x1, y1 (N, 4)."""
    return bounds.T * np.array([1, 1, -1, -1], np.int16)


def _compute_max_hole_areas(boxes: Int16Array, rims: Int16Array) -> Int32Array:
    """Twice the largest possible area of the holes in each box: (N, 4), (M, 4) -> (N,)."""
    lower = (boxes[:, None, :2] <= rims[None, :, :2]).all(axis=2)
    inside = lower & (boxes[:, None, 2:] >= rims[None, :, 2:]).all(axis=2)
    size = np.prod(rims[:, 2:].astype(np.int32) - rims[:, :2] - 1, axis=1)
    held: Int32Array = 2 * (inside @ size)
    return held


def _search_largest_box(above: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of the component with the largest enclosed area, found by measuring each one."""
    parts, _ = ndimage.label(above, np.ones((3, 3)))
    places = ndimage.find_objects(parts)
    bound = [(rows.stop - rows.start - 1) * (cols.stop - cols.start - 1) for rows, cols in places]
    most = (-1.0, 0)
    for i in np.argsort(bound)[::-1].tolist():
        if bound[i] < most[0]:
            break
        most = max(most, (_compute_enclosed_area(parts[places[i]] == i + 1), i))
    rows, cols = places[most[1]]
    return cols.start, rows.start, cols.stop, rows.stop


def _compute_enclosed_area(part: NDArray[np.bool_]) -> float:
    """The area inside the contour of one component, holes included."""
    solid = ndimage.binary_fill_holes(part).astype(np.int8)
    corners = solid[:-1, :-1] + solid[:-1, 1:] + solid[1:, :-1] + solid[1:, 1:]
    return float((corners == 4).sum() + 0.5 * (corners == 3).sum())
