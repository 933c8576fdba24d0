"""The methods once more, slowly and closer to their papers. Shares no code with camcli.

One image and one class at a time, a pixel and a channel at a time, in double precision:
activations a and gradients g are (C, H, W), weights w (C,), maps m and f (H, W), and a block's
softmax attention is (heads, N, N).
"""

from __future__ import annotations

import math
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
    return _relu(m)


def gradcam(a: Doubles, g: Doubles) -> Doubles:
    """alpha_k = 1/Z sum_i sum_j g_kij; relu(sum_k alpha_k A_k)."""
    channels, height, width = a.shape
    weights = []
    for k in range(channels):
        alpha = 0.0
        for i, j in np.ndindex(height, width):
            alpha += float(g[k, i, j])
        weights.append(alpha / (height * width))
    return weighted(a, weights)


def gradcam_plus_plus(a: Doubles, g: Doubles) -> Doubles:
    """alpha = g^2 / (2 g^2 + sum_ab A_ab g^3); w_k = sum_ij alpha_ij relu(g_ij); relu(sum w A)."""
    channels, height, width = a.shape
    weights = [0.0] * channels
    for k in range(channels):
        total = max(sum(float(value) for value in a[k].ravel()), 0.0)
        for i, j in np.ndindex(height, width):
            slope = float(g[k, i, j])
            if slope > 0:
                weights[k] += slope**2 / (2 * slope**2 + total * slope**3) * slope
    return weighted(a, weights)


def xgradcam(a: Doubles, g: Doubles) -> Doubles:
    """w_k = sum_ij (A_kij / sum_ab A_kab) g_kij, if that sum is no cancellation; relu(sum w A)."""
    channels, height, width = a.shape
    weights = [0.0] * channels
    for k in range(channels):
        total = sum(float(value) for value in a[k].ravel())
        if abs(total) <= 0.01 * sum(abs(float(value)) for value in a[k].ravel()):
            continue
        for i, j in np.ndindex(height, width):
            weights[k] += float(a[k, i, j]) / total * float(g[k, i, j])
    return weighted(a, weights)


def hirescam(a: Doubles, g: Doubles) -> Doubles:
    """relu(sum_k g_kij A_kij)."""
    channels, height, width = a.shape
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        terms = [float(g[k, i, j]) * float(a[k, i, j]) for k in range(channels)]
        if abs(sum(terms)) > 1e-5 * sum(abs(term) for term in terms):
            m[i, j] = sum(terms)
    return _relu(m)


def gradcam_elementwise(a: Doubles, g: Doubles) -> Doubles:
    """sum_k relu(g_kij A_kij)."""
    channels, height, width = a.shape
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        for k in range(channels):
            m[i, j] += max(float(g[k, i, j]) * float(a[k, i, j]), 0.0)
    return m


def layercam(a: Doubles, g: Doubles) -> Doubles:
    """w_kij = relu(g_kij); relu(sum_k w_kij A_kij)."""
    channels, height, width = a.shape
    m = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        for k in range(channels):
            if g[k, i, j] > 0:
                m[i, j] += float(g[k, i, j]) * float(a[k, i, j])
    return _relu(m)


def layercam_scaled(m: Doubles, stride: float) -> Doubles:
    """tanh(2 M / max M) on shallow layers; then every map to [0, 1]."""
    scaled = m.copy()
    if stride < 16 and m.max() > 0:
        for i, j in np.ndindex(*m.shape):
            scaled[i, j] = math.tanh(2 * float(m[i, j]) / float(m.max()))
    return minmax(scaled)


def layercam_fused(maps: Sequence[Doubles], size: tuple[int, int]) -> Doubles:
    """Raw maps of several layers as one of the input's size: the element-wise maximum."""
    fused = np.zeros(size)
    for m in maps:
        large = bilinear(layercam_scaled(m, size[0] / m.shape[0]), size)
        for i, j in np.ndindex(*size):
            fused[i, j] = max(fused[i, j], large[i, j])
    return fused


def smoothgradcam_plus_plus(a: Doubles, gradients: Sequence[Doubles]) -> Doubles:
    """alpha = D2 / (2 D2 + S D3), D1 D2 D3 the means of g g^2 g^3; w = sum alpha relu(D1)."""
    channels, height, width = a.shape
    weights = [0.0] * channels
    for k in range(channels):
        total = max(sum(float(value) for value in a[k].ravel()), 0.0)
        for i, j in np.ndindex(height, width):
            slopes = [float(g[k, i, j]) for g in gradients]
            first, second, third = (sum(s**n for s in slopes) / len(slopes) for n in (1, 2, 3))
            if second > 0:
                alpha = second / (2 * second + total * max(third, 0.0))
                weights[k] += alpha * max(first, 0.0)
    return weighted(a, weights)


def shapleycam(a: Doubles, g: Doubles, h: Doubles) -> Doubles:
    """w_k = 1/Z sum_ij (g - h / 2), h the Hessian of the score times A; relu(sum_k w_k A_k)."""
    channels, height, width = a.shape
    weights = [0.0] * channels
    for k in range(channels):
        for i, j in np.ndindex(height, width):
            weights[k] += (float(g[k, i, j]) - float(h[k, i, j]) / 2) / (height * width)
    return weighted(a, weights)


def fullgrad(x: Doubles, gx: Doubles, terms: Sequence[Doubles]) -> Doubles:
    """psi(x g_x) + sum_l psi(b_l g_l), psi: absolute, the layer to [0, 1], enlarged, summed.

    The channels are summed before they are enlarged: bilinear interpolation is linear.
    """
    saliency = np.zeros(x.shape[1:])
    for term in (x * gx, *terms):
        share = np.abs(term)
        low, high = float(share.min()), float(share.max())
        if high > low:
            total: Doubles = ((share - low) / (high - low)).sum(axis=0)
            saliency += bilinear(total, (x.shape[1], x.shape[2]))
    return saliency


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


def attended(matrix: Doubles, prefix: int, grid: tuple[int, int], cls: bool = True) -> Doubles:
    """How much CLS attends to each patch, heads averaged; without a CLS token all queries."""
    heads, tokens, _ = matrix.shape
    queries = [0] if cls else list(range(tokens))
    m = np.zeros(grid)
    for i, j in np.ndindex(*grid):
        for h in range(heads):
            for q in queries:
                m[i, j] += float(matrix[h, q, prefix + i * grid[1] + j])
    for i, j in np.ndindex(*grid):
        m[i, j] /= heads * len(queries)
    return m


def tscam(matrices: Sequence[Doubles], f: Doubles, prefix: int = 1, cls: bool = True) -> Doubles:
    """The attention of all blocks, summed, times the semantic map as it is."""
    height, width = f.shape
    joint = np.zeros((height, width))
    for matrix in matrices:
        joint += attended(matrix, prefix, (height, width), cls)
    coupled = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        coupled[i, j] = joint[i, j] * f[i, j]
    return coupled


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


def _relu(m: Doubles) -> Doubles:
    kept = np.zeros(m.shape)
    for i, j in np.ndindex(*m.shape):
        kept[i, j] = max(float(m[i, j]), 0.0)
    return kept
