"""CAM, with the classifier right after the pooling or with a LayerNorm between them."""

from __future__ import annotations

import math

import numpy as np

from reference.maps import Doubles


def cam(a: Doubles, w: Doubles) -> Doubles:
    """M_c(x, y) = sum_k w_ck A_k(x, y)."""
    channels, height, width = a.shape
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        for k in range(channels):
            m[i, j] += float(w[k]) * float(a[k, i, j])
    return m


def cam_through_norm(a: Doubles, w: Doubles, gamma: Doubles, eps: float) -> Doubles:
    """CAM where a LayerNorm stands between pool and classifier.

    Of the pooled p = mean_xy A it makes gamma_k (p_k - mean p) / sigma(p) + beta_k; a position's
    share in that is gamma_k (A_k - mean_k A) / sigma(p).
    """
    channels, height, width = a.shape
    pooled = [float(a[k].mean()) for k in range(channels)]
    centre = sum(pooled) / channels
    sigma = math.sqrt(sum((p - centre) ** 2 for p in pooled) / channels + eps)
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        mean = sum(float(a[k, i, j]) for k in range(channels)) / channels
        for k in range(channels):
            m[i, j] += float(w[k]) * float(gamma[k]) * (float(a[k, i, j]) - mean) / sigma
    return m
