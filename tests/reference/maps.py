"""What the reference methods share: weighted sums, relu, scaling to [0, 1] and enlarging."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def weighted(a: Doubles, weights: Sequence[float]) -> Doubles:
    """relu(sum_k w_k A_k)."""
    channels, height, width = a.shape
    m = np.zeros((height, width))
    for k in range(channels):
        for i, j in np.ndindex(height, width):
            m[i, j] += weights[k] * float(a[k, i, j])
    return relu(m)


def relu(m: Doubles) -> Doubles:
    """max(m_ij, 0)."""
    kept = np.zeros(m.shape)
    for i, j in np.ndindex(*m.shape):
        kept[i, j] = max(float(m[i, j]), 0.0)
    return kept


def minmax(m: Doubles) -> Doubles:
    """To [0, 1]; zeros where there is no contrast."""
    low, high = float(m.min()), float(m.max())
    scaled = np.zeros(m.shape)
    if high > low:
        for i, j in np.ndindex(*m.shape):
            scaled[i, j] = (float(m[i, j]) - low) / (high - low)
    return scaled


def bilinear(m: Doubles, size: tuple[int, int]) -> Doubles:
    """Upsampled with the centres of pixels aligned (align_corners=False), edges repeated."""
    large = np.zeros(size)
    for i in range(size[0]):
        top, down = _before(i, m.shape[0], size[0])
        bottom = min(top + 1, m.shape[0] - 1)
        for j in range(size[1]):
            left, across = _before(j, m.shape[1], size[1])
            right = min(left + 1, m.shape[1] - 1)
            above = (1 - across) * float(m[top, left]) + across * float(m[top, right])
            below = (1 - across) * float(m[bottom, left]) + across * float(m[bottom, right])
            large[i, j] = (1 - down) * above + down * below
    return large


def _before(position: int, small: int, large: int) -> tuple[int, float]:
    """The small pixel whose centre comes before a large pixel's, and the way left from there."""
    source = max((position + 0.5) * small / large - 0.5, 0.0)
    return int(source), source - int(source)
