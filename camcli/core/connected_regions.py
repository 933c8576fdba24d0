"""Label the connected regions of a mask, with NumPy alone: SciPy takes long to import.

A row of a mask is a few runs of pixels. Runs of neighbouring rows that touch are joined until no
label changes any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Extent = tuple[slice, slice]
_Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class LabeledRegions:
    """Region n has the label n+1 in `labels` (h,w), where 0 is no region, and `extents[n]`.

    Regions are in the order of their first pixels, row by row.
    """

    labels: NDArray[np.int32]
    extents: tuple[Extent, ...]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Runs of True in the rows of a mask, in order: columns from `starts` to before `stops`."""

    rows: _Indices
    starts: _Indices
    stops: _Indices

    @classmethod
    def from_mask(cls, mask: NDArray[np.bool_]) -> _Runs:
        edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        rows, starts = np.nonzero(edges == 1)
        return cls(rows, starts, np.nonzero(edges == -1)[1])


def label_regions(mask: NDArray[np.bool_]) -> LabeledRegions:
    """The 8-connected regions of a mask (h,w): pixels that touch at a corner are connected."""
    runs = _Runs.from_mask(mask)
    first_runs = _join_runs(*_find_touching_runs(runs, mask.shape[1]), len(runs.rows))
    roots, numbers = np.unique(first_runs, return_inverse=True)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(numbers + 1, runs.stops - runs.starts)
    return LabeledRegions(labels, _find_extents(runs, numbers, len(roots)))


def _find_touching_runs(runs: _Runs, width: int) -> tuple[_Indices, _Indices]:
    """Pairs (above, below) of runs in neighbouring rows that touch, at least at a corner."""
    step = width + 2  # keeps the runs of different rows apart
    above = (runs.rows - 1) * step
    first = np.searchsorted(runs.rows * step + runs.stops, above + runs.starts, side="left")
    last = np.searchsorted(runs.rows * step + runs.starts, above + runs.stops, side="right")
    counts = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(counts)), counts)
    before = np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + np.arange(len(below)) - before, below


def _join_runs(above: _Indices, below: _Indices, count: int) -> _Indices:
    """For each run the first run of its region."""
    roots = np.arange(count)
    while True:
        one, other = roots[above], roots[below]
        if np.array_equal(one, other):
            return roots
        np.minimum.at(roots, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(roots, shorter := roots[roots]):
            roots = shorter


def _find_extents(runs: _Runs, numbers: _Indices, count: int) -> tuple[Extent, ...]:
    top, left = np.full(count, np.iinfo(np.intp).max), np.full(count, np.iinfo(np.intp).max)
    bottom, right = np.zeros(count, np.intp), np.zeros(count, np.intp)
    np.minimum.at(top, numbers, runs.rows)
    np.minimum.at(left, numbers, runs.starts)
    np.maximum.at(bottom, numbers, runs.rows + 1)
    np.maximum.at(right, numbers, runs.stops)
    edges = zip(*(e.tolist() for e in (top, bottom, left, right)), strict=True)
    return tuple((slice(y1, y2), slice(x1, x2)) for y1, y2, x1, x2 in edges)
