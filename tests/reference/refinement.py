"""Refinement of a map m (H, W) by what the network computed for the same image, in plain loops."""

from __future__ import annotations

import math

import numpy as np

from reference.maps import Doubles, bilinear, relu


def feature_affinity(features: Doubles, power: float) -> Doubles:
    """A_ij = max(0, f_i . f_j / (|f_i| |f_j|))^power of features (C, h, w): (hw, hw)."""
    channels, height, width = features.shape
    vectors = [
        [float(features[c, y, x]) for c in range(channels)]
        for y in range(height)
        for x in range(width)
    ]
    found = np.zeros((len(vectors), len(vectors)))
    for i, one in enumerate(vectors):
        for j, other in enumerate(vectors):
            product = sum(a * b for a, b in zip(one, other, strict=True))
            lengths = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
            cosine = 1.0 if i == j else product / lengths if lengths else 0.0
            found[i, j] = max(cosine, 0.0) ** power
    return found


def normalize(affinity: Doubles, steps: int) -> Doubles:
    """Rows, then columns to sum 1, `steps` times; rows to sum 1 at the end."""
    found = affinity.copy()
    count = len(found)
    for step in range(steps + 1):
        for i in range(count):
            found[i] /= sum(float(value) for value in found[i])
        if step < steps:
            for j in range(count):
                found[:, j] /= sum(float(value) for value in found[:, j])
    return found


def spread(m: Doubles, affinity: Doubles, grid: tuple[int, int]) -> Doubles:
    """M'_i = sum_j P_ij relu(M_j), on the grid of P."""
    height, width = grid
    positive = relu(m)
    if m.shape[0] > height:
        rows, cols = m.shape[0] // height, m.shape[1] // width
        own = np.zeros(grid)
        for y, x in np.ndindex(height, width):
            own[y, x] = positive[y * rows : (y + 1) * rows, x * cols : (x + 1) * cols].mean()
    else:
        own = bilinear(positive, grid)
    flat = own.ravel()
    found = np.zeros(height * width)
    for i in range(len(found)):
        found[i] = sum(float(affinity[i, j]) * float(flat[j]) for j in range(len(flat)))
    return found.reshape(grid)


def guided(m: Doubles, image: Doubles, radius: int, epsilon: float) -> Doubles:
    """He et al.'s colour guided filter of the map at the size of an image (C, H, W) in [0, 1]."""
    channels, height, width = image.shape
    p = bilinear(relu(m), (height, width))
    slopes, offsets = np.zeros((height, width, channels)), np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        rows = slice(max(0, y - radius), y + radius + 1)
        cols = slice(max(0, x - radius), x + radius + 1)
        colors = image[:, rows, cols].reshape(channels, -1)
        values = p[rows, cols].ravel()
        center, level = colors.mean(axis=1), values.mean()
        covariance = colors @ colors.T / colors.shape[1] - np.outer(center, center)
        together = (colors * values).mean(axis=1) - center * level
        slopes[y, x] = np.linalg.inv(covariance + epsilon * np.eye(channels)) @ together
        offsets[y, x] = level - slopes[y, x] @ center
    found = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        rows = slice(max(0, y - radius), y + radius + 1)
        cols = slice(max(0, x - radius), x + radius + 1)
        slope = slopes[rows, cols].reshape(-1, channels).mean(axis=0)
        found[y, x] = slope @ image[:, y, x] + offsets[rows, cols].mean()
    return relu(found)
