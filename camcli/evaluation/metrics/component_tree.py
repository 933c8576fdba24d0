"""The component tree (max-tree) of a grey map: its regions at every level.

Each pixel climbs to a peak. The box of a peak's region at each level is a cumulative minimum over
its pixels. Below the level of the ridge between them, two peaks share one region.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LEVEL_COUNT = 255  # q > 0, ..., q > 254; no pixel is above 255
GrayMap = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
Int16Array = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class ComponentTree:
    """The regions {q > t} by highest peak P and level t.

    bounds (4, P, 255): x0, y0, -x1, -y1. area (P, 255): twice the area inside the contour, without
    holes. A peak has a region of its own at levels merge_level (P,) <= t < peak_level (P,). At
    lower levels its region has merged with that of a higher peak.
    """

    bounds: Int16Array
    area: Int32Array
    merge_level: Int32Array
    peak_level: Int32Array

    @property
    def alive_mask(self) -> NDArray[np.bool_]:
        """Whether a peak has a region of its own at each level (P, 255)."""
        t = np.arange(LEVEL_COUNT)
        return (self.merge_level[:, None] <= t) & (t < self.peak_level[:, None])


def create_component_tree(grey: GrayMap, *, diagonal: bool) -> ComponentTree:
    """The tree of a map (H, W); `diagonal` means 8-connected pixels, otherwise 4-connected."""
    slopes, high = _find_pixel_peaks(grey, diagonal)
    peak, high, ridges = _merge_plateaus(slopes, high, _find_ridges(grey, slopes, diagonal))
    bounds = _compute_peak_bounds(grey, peak, len(high))
    area = (
        _compute_peak_areas(grey, peak, len(high))
        if diagonal
        else np.zeros((len(high), LEVEL_COUNT), np.int32)
    )
    low = np.zeros(len(high), np.int32)
    for winner, loser, ridge in _iter_merges(high, ridges):
        # Both peaks are above t if t < ridge.
        own = bounds[:, winner, :ridge]
        np.minimum(own, bounds[:, loser, :ridge], out=own)
        area[winner, :ridge] += area[loser, :ridge]
        low[loser] = ridge
    return ComponentTree(bounds, area, low, high)


def _find_pixel_peaks(grey: GrayMap, diagonal: bool) -> tuple[Int32Array, Int32Array]:
    """The number of the peak that each pixel climbs to (H, W), and the peaks' heights (P,)."""
    size = grey.size
    # Order by grey level, then position: no two pixels are equal, so no plateau stops a climb.
    bits = size.bit_length()
    key = (grey.astype(np.int32) << bits) | _repeat_indices(size, 1, np.int32).reshape(grey.shape)
    around = np.pad(key, 1, constant_values=-1)
    up_down = np.maximum(np.maximum(around[:-2], around[2:]), around[1:-1])
    if diagonal:
        best = np.maximum(np.maximum(up_down[:, :-2], up_down[:, 2:]), up_down[:, 1:-1])
    else:
        best = np.maximum(np.maximum(around[1:-1, :-2], around[1:-1, 2:]), up_down[:, 1:-1])
    goal = (best & (1 << bits) - 1).ravel().astype(np.intp)
    spare = np.empty_like(goal)
    for _ in range(max(grey.shape).bit_length() - 1):  # steps double; few climbs need more
        goal, spare = np.take(goal, goal, out=spare, mode="clip"), goal
    while not np.array_equal(np.take(goal, goal, out=spare, mode="clip"), goal):
        goal, spare = spare, goal
    peaks, number = _number_roots(goal, _repeat_indices(size, 1, np.intp))
    return number.reshape(grey.shape), grey.ravel()[peaks].astype(np.int32)


def _number_roots(
    goal: NDArray[np.integer], place: NDArray[np.integer]
) -> tuple[NDArray[np.intp], Int32Array]:
    """The indices that point to themselves (P,), and the number of the one reached by each (N,)."""
    ends = np.flatnonzero(goal == place)
    number = np.zeros(len(goal), np.int32)
    number[ends] = np.arange(len(ends), dtype=np.int32)
    return ends, number.take(goal)


def _compute_peak_bounds(grey: GrayMap, peak: Int32Array, count: int) -> Int16Array:
    """x0, y0, -x1, -y1 of the pixels that climb to each peak: (4, P, 255).

    NumPy keeps the last of several values written to one index. Rows written from the bottom up
    therefore leave the top one.
    """
    place = (peak * 256 + grey).astype(np.intp)
    bounds = np.full((4, count * 256), np.iinfo(np.int16).max, np.int16)
    by_row, by_column = place.ravel(), place.T.ravel()
    rows, columns = (_repeat_indices(*shape, np.int16) for shape in (grey.shape, grey.shape[::-1]))
    bounds[0][by_column[::-1]] = columns[::-1]
    bounds[1][by_row[::-1]] = rows[::-1]
    bounds[2][by_column] = ~columns
    bounds[3][by_row] = ~rows
    at_least = np.minimum.accumulate(bounds.reshape(4, count, 256)[..., ::-1], axis=-1)
    return at_least[..., -2::-1].copy()


@cache
def _repeat_indices(count: int, times: int, kind: type[np.integer]) -> NDArray[np.integer]:
    """0, 0, ..., 1, 1, ...: a row's or column's number for each of its pixels."""
    return np.repeat(np.arange(count, dtype=kind), times)


def _compute_peak_areas(grey: GrayMap, peak: Int32Array, count: int) -> Int32Array:
    """Twice the area inside the contour of each peak's pixels, without holes: (P, 255).

    Of each 2 x 2 pixels, a contour encloses a triangle if three are in the region, and the square
    if all four are. The area belongs to the peak of the highest of the four.
    """
    if count == 1:
        return np.zeros((1, LEVEL_COUNT), np.int32)  # there is no other region to compare it with
    corners = [np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]]
    a, b, c, d = (grey[corner] for corner in corners)
    _, _, third, fourth = _sort_descending(a, b, c, d)
    p, q, r, s = (peak[corner] for corner in corners)
    owner = p.copy()
    mixed = np.nonzero((p != q) | (p != r) | (p != s))
    four = np.stack([corner[mixed] for corner in (a, b, c, d)])
    owner[mixed] = np.stack([o[mixed] for o in (p, q, r, s)])[four.argmax(0), range(four.shape[1])]
    place = owner.astype(np.intp) * 256
    added = np.bincount((place + third).ravel(), minlength=count * 256)
    added += np.bincount((place + fourth).ravel(), minlength=count * 256)
    return np.cumsum(added.reshape(count, 256)[:, ::-1], axis=1, dtype=np.int32)[:, -2::-1].copy()


@dataclass(frozen=True, slots=True)
class _Ridges:
    """The highest pass between the slopes of two peaks: the later peak, the earlier, the level."""

    later_peak: Int32Array
    earlier_peak: Int32Array
    level: Int32Array


def _find_ridges(grey: GrayMap, peak: Int32Array, diagonal: bool) -> _Ridges:
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
        found.append(_encode_ridges(owner[border], owner[beyond], ridge))
    return _decode_highest_ridges(np.concatenate(found))


def _encode_ridges(
    one: Int32Array, other: Int32Array, level: NDArray[np.integer]
) -> NDArray[np.int64]:
    return (
        (np.maximum(one, other).astype(np.int64) << 36)
        | (np.minimum(one, other).astype(np.int64) << 8)
        | level
    )


def _decode_highest_ridges(codes: NDArray[np.int64]) -> _Ridges:
    """The highest ridge between each pair of peaks, highest first."""
    codes = np.sort(codes)
    codes = codes[np.flatnonzero(np.diff(codes >> 8, append=-1))]
    codes = codes[np.argsort(-(codes & 255), kind="stable")]
    later, earlier = codes >> 36, codes >> 8 & (1 << 28) - 1
    return _Ridges(*(part.astype(np.int32) for part in (later, earlier, codes & 255)))


def _merge_plateaus(
    slopes: Int32Array, high: Int32Array, ridges: _Ridges
) -> tuple[Int32Array, Int32Array, _Ridges]:
    """Merge peaks of one plateau: a peak with a level path to another peak is part of that one."""
    one, other = ridges.later_peak, ridges.earlier_peak
    later_is_lower = high[one] < high[other]  # of equal peaks the earlier leads to the later
    lower, upper = np.where(later_is_lower, one, other), np.where(later_is_lower, other, one)
    level = ridges.level == high[lower]
    place = np.arange(len(high), dtype=np.int32)
    leads = place.copy()
    leads[lower[level]] = upper[level]
    while not np.array_equal(further := leads[leads], leads):
        leads = further
    real, named = _number_roots(leads, place)
    one, other = named[one], named[other]
    apart = one != other
    codes = _encode_ridges(one[apart], other[apart], ridges.level[apart])
    return named.take(slopes), high[real], _decode_highest_ridges(codes)


def _iter_merges(high: Int32Array, ridges: _Ridges) -> Iterator[tuple[int, int, int]]:
    """Yield merges as (winner, loser, ridge). The higher peak wins; of equal peaks, the later."""
    leader = list(range(len(high)))
    rank = np.argsort(np.argsort(high, kind="stable")).tolist()

    def find_leader(peak: int) -> int:
        while leader[peak] != peak:
            leader[peak] = leader[leader[peak]]
            peak = leader[peak]
        return peak

    passes = (ridges.later_peak.tolist(), ridges.earlier_peak.tolist(), ridges.level.tolist())
    for one, other, ridge in zip(*passes, strict=True):
        a, b = find_leader(one), find_leader(other)
        if a != b:
            winner, loser = (a, b) if rank[a] > rank[b] else (b, a)
            leader[loser] = winner
            yield winner, loser, ridge


def count_holes(grey: GrayMap, tree: ComponentTree) -> Int32Array:
    """Count the holes at each level (255,): the number of regions minus the Euler number E.

    4 E = n1 - n3 - 2 nd. Of all 2 x 2 windows, n1 have one pixel above the level, n3 three, and nd
    two that touch only at a corner (Gray 1971, for 8-connected regions).
    """
    framed = np.pad(grey, 1)
    a, b, c, d = framed[:-1, :-1], framed[:-1, 1:], framed[1:, :-1], framed[1:, 1:]
    first, second, third, fourth = _sort_descending(a, b, c, d)
    one, three = (
        _count_above(first) - _count_above(second),
        _count_above(third) - _count_above(fourth),
    )
    corner = (np.minimum(a, d) > np.maximum(b, c)) | (np.minimum(b, c) > np.maximum(a, d))
    two = _count_above(second[corner]) - _count_above(third[corner])
    found: Int32Array = tree.alive_mask.sum(axis=0) - (one - three - 2 * two) // 4
    return found


def _sort_descending(
    a: GrayMap, b: GrayMap, c: GrayMap, d: GrayMap
) -> tuple[GrayMap, GrayMap, GrayMap, GrayMap]:
    """Sort four arrays element by element, highest first."""
    low, low2, high, high2 = np.minimum(a, b), np.minimum(c, d), np.maximum(a, b), np.maximum(c, d)
    middle, middle2 = np.maximum(low, low2), np.minimum(high, high2)
    return (
        np.maximum(high, high2),
        np.maximum(middle, middle2),
        np.minimum(middle, middle2),
        np.minimum(low, low2),
    )


def _count_above(values: GrayMap) -> NDArray[np.int64]:
    """Count the values above each level (255,)."""
    return np.bincount(values.ravel(), minlength=256)[::-1].cumsum()[-2::-1]
