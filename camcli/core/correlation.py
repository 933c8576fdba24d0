"""Correlations of two sets of values: Pearson's, and Spearman's of the ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]


def compute_pearson(one: ArrayLike, other: ArrayLike) -> float | None:
    """Pearson's correlation; None if one side is constant. Equal values give exactly 1."""
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if is_constant(first) or is_constant(second):
        return None
    if np.array_equal(first, second):
        return 1.0
    a, b = first.ravel() - first.mean(), second.ravel() - second.mean()
    correlation = float(a @ b) / float(np.sqrt(a @ a) * np.sqrt(b @ b))
    return min(1.0, max(-1.0, correlation))


def compute_spearman(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's rank correlation, with mean ranks for ties; None if one side is constant."""
    return compute_pearson(rank_values(one), rank_values(other))


def rank_values(values: ArrayLike) -> Float64Array:
    """The rank of each value from 1, flat; equal values get the mean of their ranks.

    It equals `scipy.stats.rankdata`, which takes long to import.
    """
    flat = np.asarray(values, np.float64).ravel()
    _, position, counts = np.unique(flat, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    ranks: Float64Array = mean_ranks[position]
    return ranks


def is_constant(values: Float64Array) -> bool:
    """Whether all values are the same."""
    return bool(values.min() == values.max())
