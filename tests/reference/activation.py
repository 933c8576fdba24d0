"""The methods that read activations a (C, H, W) alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from reference.maps import Doubles, relu, weighted


def eigencam(a: Doubles) -> Doubles:
    """relu(P), P = (A - mean_ij A) v_1: pixels in rows, v_1 the first right singular vector."""
    rows = _pixels(a)
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    projection = [float(sum(row * directions[0])) for row in rows]
    return relu(_oriented(projection, a))


def eigengradcam(a: Doubles, g: Doubles) -> Doubles:
    """eigencam(g A)."""
    product = np.zeros(a.shape)
    for k, i, j in np.ndindex(*a.shape):
        product[k, i, j] = float(g[k, i, j]) * float(a[k, i, j])
    return eigencam(product)


def kpcacam(a: Doubles) -> Doubles:
    """relu(sqrt(l_1) u_1) of the centred kernel K_ij = tanh(x_i x_j / C + 1), x_i a pixel of A."""
    rows = _pixels(a)
    pixels, channels = rows.shape
    kernel = np.zeros((pixels, pixels))
    for i, j in np.ndindex(pixels, pixels):
        kernel[i, j] = math.tanh(float(rows[i] @ rows[j]) / channels + 1)
    centred = np.zeros((pixels, pixels))
    row_means, column_means, mean = kernel.mean(axis=1), kernel.mean(axis=0), kernel.mean()
    for i, j in np.ndindex(pixels, pixels):
        centred[i, j] = kernel[i, j] - row_means[i] - column_means[j] + mean
    values, vectors = np.linalg.eigh(centred)
    length = math.sqrt(max(float(values[-1]), 0.0))
    return relu(_oriented([length * float(entry) for entry in vectors[:, -1]], a))


def fem(a: Doubles, k: float = 2.0) -> Doubles:
    """w_c = share of the pixels with A_c > mean(A_c) + k std(A_c); relu(sum_c w_c A_c)."""
    channels, height, width = a.shape
    weights = []
    for c in range(channels):
        values = [float(value) for value in a[c].ravel()]
        mean = sum(values) / len(values)
        std = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        above = [value for value in values if value > mean + k * std]
        weights.append(len(above) / (height * width))
    return weighted(a, weights)


def randomcam(a: Doubles, weights: Sequence[float]) -> Doubles:
    """relu(sum_k w_k A_k), with random weights w."""
    return weighted(a, weights)


def _pixels(a: Doubles) -> Doubles:
    """x_ij = A_ij - mean_ij A: a row for each pixel, a column for each channel."""
    channels, height, width = a.shape
    rows = np.zeros((height * width, channels))
    for k in range(channels):
        mean = sum(float(value) for value in a[k].ravel()) / (height * width)
        for i, j in np.ndindex(height, width):
            rows[i * width + j, k] = float(a[k, i, j]) - mean
    return rows


def _oriented(projection: Sequence[float], a: Doubles) -> Doubles:
    """P or -P: the one with sum_ij P_ij sum_k A_kij >= 0."""
    _, height, width = a.shape
    m = np.zeros((height, width))
    agreement = 0.0
    for i, j in np.ndindex(height, width):
        m[i, j] = projection[i * width + j]
        agreement += float(m[i, j]) * sum(float(value) for value in a[:, i, j])
    return m if agreement >= 0 else -m
