"""Every region of a map at every grey level, in one pass instead of 255 searches.

A map is cut into grey levels, q = trunc(255 m); at level t its regions are the 8-connected parts
of {q > t}, which its merge tree has for all t. Holes are the same thing upside down, 4-connected.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from camcli.evaluation.metrics.component_tree import LEVELS, Grey, Ints, Shorts, Tree, grow, holes


@dataclass(frozen=True, slots=True)
class Regions:
    """The boxes of a map's regions at each level: x0, y0, x1, y1, half-open.

    `largest` (255, 4): the region whose outer contour encloses most; zeros where there is none.
    `every` (N, 4) at level `level` (N,): all regions, and the contours around their holes.
    """

    largest: Shorts
    every: Shorts
    level: Ints


def quantise(shown: NDArray[np.floating]) -> Grey:
    """Grey levels of a map in [0, 1]: trunc(255 m), as the protocols' 8-bit images have them."""
    return (shown * 255).astype(np.uint8)


def find(grey: Grey) -> Regions:
    """All regions of a grey map (H, W) at all levels.

    Areas are those that contours through pixel centres enclose (OpenCV's contourArea, which
    wsolevaluation and TS-CAM compare); of equal ones the last in reading order is taken, as the
    first of OpenCV's list of contours is.
    """
    land = grow(grey, diagonal=True)
    rims, rim_level = _rims(grey) if holes(grey, land).any() else _NO_RIMS
    boxes, level = _alive(land, slice(None))
    return Regions(
        _largest(grey, land, rims, rim_level),
        np.concatenate([boxes, rims]),
        np.concatenate([level, rim_level]),
    )


_NO_RIMS = np.zeros((0, 4), np.int16), np.zeros(0, np.int32)


def _rims(grey: Grey) -> tuple[Shorts, Ints]:
    """The boxes of the contours around holes (N, 4), and their levels (N,)."""
    # A frame of sea: the water around the map is the peak that outlives all others.
    sea = grow(np.pad(255 - grey, 1, constant_values=255), diagonal=False)
    boxes, level = _alive(sea, slice(0, -1))
    return boxes + np.array([-2, -2, 0, 0], np.int16), 254 - level  # off the frame, around the hole


def _alive(tree: Tree, which: slice) -> tuple[Shorts, Ints]:
    """The boxes (N, 4) of the regions of those peaks, and their levels (N,)."""
    peak, level = np.nonzero(tree.alive[which])
    return _upright(tree.bounds[:, peak, level]), level.astype(np.int32)


def _largest(grey: Grey, tree: Tree, rims: Shorts, rim_level: Ints) -> Shorts:
    """The box of the region that encloses most at each level (255, 4), given the holes' rims."""
    alive = tree.alive
    area = np.where(alive, tree.area, -1)
    best = area.argmax(axis=0)
    level = np.arange(LEVELS)
    boxes = _upright(tree.bounds[:, best, level])
    # With its holes a region encloses more than is counted, but no more than its box does.
    holed = np.bincount(rim_level, minlength=LEVELS) > 0
    within = 2 * np.prod(-tree.bounds[2:].astype(np.int32) - tree.bounds[:2] - 1, axis=0)
    rival = alive & (np.where(holed, within, tree.area) >= area[best, level])
    for t in np.flatnonzero(rival.sum(axis=0) > 1):
        of_rivals = _upright(tree.bounds[:, rival[:, t], t])
        at_most = area[rival[:, t], t] + _held(of_rivals, rims[rim_level == t])
        left = np.flatnonzero(at_most >= area[best[t], t])
        boxes[t] = of_rivals[left[0]] if len(left) == 1 else _searched(grey > t)
    boxes[~alive.any(axis=0)] = 0
    return boxes


def _upright(bounds: Shorts) -> Shorts:
    """Bounds x0, y0, -x1, -y1 (4, N) as boxes x0, y0, x1, y1 (N, 4)."""
    return bounds.T * np.array([1, 1, -1, -1], np.int16)


def _held(boxes: Shorts, rims: Shorts) -> Ints:
    """Twice the most that the holes within each box can enclose: (N, 4), (M, 4) -> (N,)."""
    lower = (boxes[:, None, :2] <= rims[None, :, :2]).all(axis=2)
    inside = lower & (boxes[:, None, 2:] >= rims[None, :, 2:]).all(axis=2)
    size = np.prod(rims[:, 2:].astype(np.int32) - rims[:, :2] - 1, axis=1)
    held: Ints = 2 * (inside @ size)
    return held


def _searched(above: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The box of the part that encloses most, each part searched: for where it is not evident."""
    parts, _ = ndimage.label(above, np.ones((3, 3)))
    places = ndimage.find_objects(parts)
    bound = [(rows.stop - rows.start - 1) * (cols.stop - cols.start - 1) for rows, cols in places]
    most = (-1.0, 0)
    for i in np.argsort(bound)[::-1].tolist():
        if bound[i] < most[0]:
            break
        most = max(most, (_enclosed(parts[places[i]] == i + 1), i))
    rows, cols = places[most[1]]
    return cols.start, rows.start, cols.stop, rows.stop


def _enclosed(part: NDArray[np.bool_]) -> float:
    """What the contour of one part encloses, holes included."""
    solid = ndimage.binary_fill_holes(part).astype(np.int8)
    corners = solid[:-1, :-1] + solid[:-1, 1:] + solid[1:, :-1] + solid[1:, 1:]
    return float((corners == 4).sum() + 0.5 * (corners == 3).sum())
