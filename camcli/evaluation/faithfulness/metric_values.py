"""The metrics of one map, derived from confidences: pure arithmetic of numbers and curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def compute_area(shares: ArrayLike, confidences: ArrayLike) -> float:
    """The area under a curve by the trapezoid rule; shares rise from 0 to 1."""
    x, y = np.asarray(shares, np.float64), np.asarray(confidences, np.float64)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def compute_insertion(shares: ArrayLike, least_first: ArrayLike) -> float:
    """Insertion: the area of f -> LeRF(1 - f), where LeRF removes the least relevant share."""
    x, y = np.asarray(shares, np.float64), np.asarray(least_first, np.float64)
    return compute_area(1 - x[::-1], y[::-1])


def compute_road(most_first: ArrayLike, least_first: ArrayLike) -> float:
    """ROAD: half the mean of LeRF(f) - MoRF(f) over the shares f. Source: arXiv 2202.00449."""
    return float((np.asarray(least_first, np.float64) - np.asarray(most_first)).mean() / 2)


def compute_srg(shares: ArrayLike, most_first: ArrayLike, least_first: ArrayLike) -> float:
    """SRG: the area between LeRF and MoRF. Source: arXiv 2401.06654."""
    return compute_area(shares, least_first) - compute_area(shares, most_first)


def compute_drop(confidence: float, masked: float) -> float:
    """Average drop in percent: 100 max(0, p - O) / p. Source: arXiv 1710.11063."""
    return 100 * max(0.0, confidence - masked) / confidence if confidence > 0 else 0.0


def compute_saco(saliences: Sequence[float], drops: Sequence[float]) -> float | None:
    """SaCo: do groups with more salience lower the confidence more? Source: arXiv 2404.01415.

    `saliences` s fall. sum over i<j of +-(s_i - s_j) by its absolute sum: + where drop g_i >= g_j.
    None if all saliences are equal.
    """
    s, g = np.asarray(saliences, np.float64), np.asarray(drops, np.float64)
    i, j = np.triu_indices(len(s), 1)
    weights = s[i] - s[j]
    total = float(np.abs(weights).sum())
    return float(np.where(g[i] >= g[j], weights, -weights).sum() / total) if total > 0 else None


def compute_step_counts(pixel_count: int, steps: int) -> list[int]:
    """The number of pixels that each step removes: k_j = floor((2 j N + S) / 2 S), j = 0..S."""
    return [(2 * j * pixel_count + steps) // (2 * steps) for j in range(steps + 1)]
