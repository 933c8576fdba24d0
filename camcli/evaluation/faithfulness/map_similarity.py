"""How alike two maps are: rank correlation and structural similarity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from camcli.core.correlation import compute_spearman
from camcli.core.geometry import Float32Array, normalize_array, resize_map
from camcli.evaluation.metrics.scoring import CANVAS_SIDE

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # a window of 11 pixels
SSIM_STABILITY = (0.01**2, 0.03**2)  # of values in [0, 1]


def compare_map_ranks(first: Float32Array, second: Float32Array) -> float | None:
    """Spearman's correlation of two raw maps of one shape; None if one is constant."""
    if first.shape != second.shape:
        second = resize_map(second, (first.shape[0], first.shape[1]))
    return compute_spearman(first.ravel(), second.ravel())


def compute_ssim(first: Float32Array, second: Float32Array) -> float:
    """Structural similarity of two maps: the mean of `compute_similarity_map`."""
    return float(compute_similarity_map(first, second).mean())


def compute_similarity_map(first: Float32Array, second: Float32Array) -> NDArray[np.float64]:
    """SSIM at each place of two maps, min-max normalized at 224 x 224. Source: Wang 2004.

    (2 a b + c1) (2 s_ab + c2) / (a^2 + b^2 + c1) (s_a^2 + s_b^2 + c2), with means, variances and
    the covariance under a Gaussian window. Returns (224, 224).
    """
    a, b = (_prepare_map(values) for values in (first, second))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    c1, c2 = SSIM_STABILITY
    above = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    similarity: NDArray[np.float64] = above / below
    return similarity


def _prepare_map(values: Float32Array) -> NDArray[np.float64]:
    return normalize_array(resize_map(values, (CANVAS_SIDE, CANVAS_SIDE)).astype(np.float64))


def _blur(values: NDArray[np.float64]) -> NDArray[np.float64]:
    blurred: NDArray[np.float64] = gaussian_filter(values, SSIM_SIGMA, radius=SSIM_RADIUS)
    return blurred
