"""Deep feature factorization."""

from __future__ import annotations

import numpy as np

from reference.maps import Doubles


def dff(a: Doubles, maps: Doubles, parts: Doubles, steps: int) -> Doubles:
    """V ~ W H by H <- H (W'V)/(W'WH), W <- W (VH')/(WHH'); W's columns by strength, as maps.

    From the start W `maps` (HW,N), H `parts` (N,C).
    """
    channels, height, width = a.shape
    v = np.zeros((height * width, channels))
    for i, j in np.ndindex(height, width):
        v[i * width + j] = np.maximum(a[:, i, j], 0)
    w, h = maps.copy(), parts.copy()
    for _ in range(steps):
        h = h * (w.T @ v) / np.maximum(w.T @ w @ h, 1e-30)  # 0/0 in channels that are 0
        w = w * (v @ h.T) / np.maximum(w @ h @ h.T, 1e-30)
    concepts: list[Doubles] = []
    for n in range(w.shape[1]):
        length = float(np.sqrt((h[n] ** 2).sum()))
        concepts.append((w[:, n] * length).reshape(height, width))
    strength = [-float(concept.sum()) for concept in concepts]
    return np.stack([concepts[n] for n in np.argsort(strength)])
