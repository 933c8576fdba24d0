"""The methods that weigh activations a by gradients g, both (C, H, W), for one image and class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reference.maps import Doubles, bilinear, minmax, relu, weighted


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
    return relu(m)


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
    return relu(m)


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


def integratedgradcam(
    weights: Sequence[float], pairs: Sequence[tuple[Doubles, Doubles]]
) -> Doubles:
    """int_0^1 relu(sum_k w_k(t) A_k(t x)) dt; `pairs` are A and g at each node of quadrature."""
    m = np.zeros(pairs[0][0].shape[1:])
    for weight, (a, g) in zip(weights, pairs, strict=True):
        m += weight * gradcam(a, g)
    return m


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
