"""Every region of a map at every grey level, in one pass: a merge tree instead of 255 searches.

A map is cut into grey levels, q = trunc(255 m); at level t its regions are the 8-connected parts
of {q > t}. Each pixel climbs to a peak; what a peak adds to its region at each level is a
cumulative minimum; and two peaks' regions are one from the ridge between them downwards. Holes
are the same thing upside down, 4-connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEVELS = 255  # q > 0, ..., q > 254: above 255 there is nothing
Grey = NDArray[np.uint8]
Ints = NDArray[np.int32]
Shorts = NDArray[np.int16]


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
    land = _tree(grey, diagonal=True)
    # A frame of sea: the water around the map is the peak that outlives all others.
    sea = _tree(np.pad(255 - grey, 1, constant_values=255), diagonal=False)
    rims, rim_level = _alive(sea, slice(0, -1))
    rims = rims + np.array([-2, -2, 0, 0], np.int16)  # off the frame, and around the hole
    rim_level = 254 - rim_level
    boxes, level = _alive(land, slice(None))
    return Regions(
        _largest(grey, land, rims, rim_level),
        np.concatenate([boxes, rims]),
        np.concatenate([level, rim_level]),
    )


@dataclass(frozen=True, slots=True)
class _Tree:
    """The regions {q > t}, each known by its highest peak, for peak P and level t.

    bounds (4, P, 255): x0, y0, -x1, -y1. area (P, 255): twice what the contour encloses, holes
    left out. A peak stands for a region where low (P,) <= t < high (P,): below that it has joined
    a higher one.
    """

    bounds: Shorts
    area: Ints
    low: Ints
    high: Ints

    @property
    def alive(self) -> NDArray[np.bool_]:
        t = np.arange(LEVELS)
        return (self.low[:, None] <= t) & (t < self.high[:, None])


def _tree(grey: Grey, *, diagonal: bool) -> _Tree:
    slopes, high = _climb(grey, diagonal)
    peak, high, ridges = _without_plateaus(slopes, high, _ridges(grey, slopes, diagonal))
    bounds = _bounds(grey, peak, len(high))
    area = _areas(grey, peak, len(high)) if diagonal else np.zeros((len(high), LEVELS), np.int32)
    low = np.zeros(len(high), np.int32)
    for winner, loser, ridge in _joins(high, ridges):
        # Both are above t where t < ridge.
        own = bounds[:, winner, :ridge]
        np.minimum(own, bounds[:, loser, :ridge], out=own)
        area[winner, :ridge] += area[loser, :ridge]
        low[loser] = ridge
    return _Tree(bounds, area, low, high)


def _alive(tree: _Tree, which: slice) -> tuple[Shorts, Ints]:
    """The boxes (N, 4) of the regions of those peaks, and their levels (N,)."""
    peak, level = np.nonzero(tree.alive[which])
    return _upright(tree.bounds[:, peak, level]), level.astype(np.int32)


def _climb(grey: Grey, diagonal: bool) -> tuple[Ints, Ints]:
    """The number of the peak that each pixel climbs to (H, W), and the peaks' heights (P,)."""
    size = grey.size
    # A total order, grey level then position: no two pixels are equal, so no plateau stops a climb.
    key = grey * np.int32(size) + np.arange(size, dtype=np.int32).reshape(grey.shape)
    around = np.pad(key, 1, constant_values=-1)
    up_down = np.maximum(np.maximum(around[:-2], around[2:]), around[1:-1])
    if diagonal:
        best = np.maximum(np.maximum(up_down[:, :-2], up_down[:, 2:]), up_down[:, 1:-1])
    else:
        best = np.maximum(np.maximum(around[1:-1, :-2], around[1:-1, 2:]), up_down[:, 1:-1])
    goal = (best % size).ravel().astype(np.intp)
    while not np.array_equal(further := goal.take(goal), goal):
        goal = further
    peaks = np.flatnonzero(goal == np.arange(size))
    number = np.zeros(size, np.int32)
    number[peaks] = np.arange(len(peaks), dtype=np.int32)
    return number.take(goal).reshape(grey.shape), grey.ravel()[peaks].astype(np.int32)


def _bounds(grey: Grey, peak: Ints, count: int) -> Shorts:
    """x0, y0, -x1, -y1 of what each peak adds to its region: (4, P, 255).

    Of several values written to one place numpy keeps the last, so rows written upwards leave the
    topmost.
    """
    place = (peak * 256 + grey).astype(np.intp)
    bounds = np.full((4, count * 256), np.iinfo(np.int16).max, np.int16)
    by_row, by_column = place.ravel(), place.T.ravel()
    rows, columns = _numbers(*grey.shape), _numbers(*grey.shape[::-1])
    bounds[0][by_column[::-1]] = columns[::-1]
    bounds[1][by_row[::-1]] = rows[::-1]
    bounds[2][by_column] = ~columns
    bounds[3][by_row] = ~rows
    at_least = np.minimum.accumulate(bounds.reshape(4, count, 256)[..., ::-1], axis=-1)
    return at_least[..., -2::-1].copy()


@cache
def _numbers(count: int, times: int) -> Shorts:
    """0, 0, ..., 1, 1, ...: a row's or column's number for each of its pixels."""
    return np.repeat(np.arange(count, dtype=np.int16), times)


def _areas(grey: Grey, peak: Ints, count: int) -> Ints:
    """Twice the area that the contour of what each peak adds encloses, holes left out: (P, 255).

    Of each 2 x 2 pixels a contour encloses a triangle once three are there, and the square once
    all four are. They belong to the region of the highest of them.
    """
    if count == 1:
        return np.zeros((1, LEVELS), np.int32)  # nothing to compare it with
    corners = [np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]]
    a, b, c, d = (grey[corner] for corner in corners)
    low, low2, high, high2 = np.minimum(a, b), np.minimum(c, d), np.maximum(a, b), np.maximum(c, d)
    third = np.minimum(np.maximum(low, low2), np.minimum(high, high2))
    p, q, r, s = (peak[corner] for corner in corners)
    owner = p.copy()
    mixed = np.nonzero((p != q) | (p != r) | (p != s))
    four = np.stack([corner[mixed] for corner in (a, b, c, d)])
    owner[mixed] = np.stack([o[mixed] for o in (p, q, r, s)])[four.argmax(0), range(four.shape[1])]
    place = owner.astype(np.intp) * 256
    added = np.bincount((place + third).ravel(), minlength=count * 256)
    added += np.bincount((place + np.minimum(low, low2)).ravel(), minlength=count * 256)
    return np.cumsum(added.reshape(count, 256)[:, ::-1], axis=1, dtype=np.int32)[:, -2::-1].copy()


@dataclass(frozen=True, slots=True)
class _Ridges:
    """The highest pass between the slopes of two peaks: the later peak, the earlier, the level."""

    later: Ints
    earlier: Ints
    level: Ints


def _ridges(grey: Grey, peak: Ints, diagonal: bool) -> _Ridges:
    width = grey.shape[1]
    # Steps in a flattened picture, and the column from which a step leaves it.
    steps = [(1, width - 1), (width, None)]
    if diagonal:
        steps += [(width + 1, width - 1), (width - 1, 0)]
    level, owner = grey.ravel(), peak.ravel()
    found = []
    for step, edge in steps:
        there = owner[step:]
        border = np.flatnonzero(owner[: len(there)] != there)
        if edge is not None:
            border = border[border % width != edge]
        beyond = border + step
        ridge = np.minimum(level[border], level[beyond])
        found.append(_code(owner[border], owner[beyond], ridge))
    return _highest(np.concatenate(found))


def _code(one: Ints, other: Ints, level: NDArray[np.integer]) -> NDArray[np.int64]:
    return (
        (np.maximum(one, other).astype(np.int64) << 36)
        | (np.minimum(one, other).astype(np.int64) << 8)
        | level
    )


def _highest(codes: NDArray[np.int64]) -> _Ridges:
    """Of each pair of peaks the highest pass, from the highest down."""
    codes = np.sort(codes)
    codes = codes[np.flatnonzero(np.diff(codes >> 8, append=-1))]
    codes = codes[np.argsort(-(codes & 255), kind="stable")]
    later, earlier = codes >> 36, codes >> 8 & (1 << 28) - 1
    return _Ridges(*(part.astype(np.int32) for part in (later, earlier, codes & 255)))


def _without_plateaus(slopes: Ints, high: Ints, ridges: _Ridges) -> tuple[Ints, Ints, _Ridges]:
    """Peaks that are none, for the way on is level, given to the peak to which it leads."""
    one, other = ridges.later, ridges.earlier
    later_is_lower = high[one] < high[other]  # equal ones lead to the later, not to each other
    lower, upper = np.where(later_is_lower, one, other), np.where(later_is_lower, other, one)
    level = ridges.level == high[lower]
    leads = np.arange(len(high), dtype=np.int32)
    leads[lower[level]] = upper[level]
    while not np.array_equal(further := leads[leads], leads):
        leads = further
    real = np.flatnonzero(leads == np.arange(len(high)))
    number = np.zeros(len(high), np.int32)
    number[real] = np.arange(len(real), dtype=np.int32)
    named = number[leads]
    one, other = named[one], named[other]
    apart = one != other
    codes = _code(one[apart], other[apart], ridges.level[apart])
    return named.take(slopes), high[real], _highest(codes)


def _joins(high: Ints, ridges: _Ridges) -> Iterator[tuple[int, int, int]]:
    """Regions that become one: winner, loser, ridge. The higher peak wins, of equals the later."""
    leader = list(range(len(high)))
    rank = np.argsort(np.argsort(high, kind="stable")).tolist()

    def led_by(peak: int) -> int:
        while leader[peak] != peak:
            leader[peak] = leader[leader[peak]]
            peak = leader[peak]
        return peak

    passes = (ridges.later.tolist(), ridges.earlier.tolist(), ridges.level.tolist())
    for one, other, ridge in zip(*passes, strict=True):
        a, b = led_by(one), led_by(other)
        if a != b:
            winner, loser = (a, b) if rank[a] > rank[b] else (b, a)
            leader[loser] = winner
            yield winner, loser, ridge


def _largest(grey: Grey, tree: _Tree, rims: Shorts, rim_level: Ints) -> Shorts:
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
