"""Baselines: maps that do not depend on the image, for comparison with every method."""

from __future__ import annotations

from functools import cache

import numpy as np

from camcli.core.geometry import normalize_array, resize_map
from camcli.evaluation.datasets.annotations import hash_image_name
from camcli.evaluation.metrics.scoring import CANVAS_SIDE, CanvasMap, create_canvas_map

GAUSSIAN_SIGMA = 0.25  # of the side; at the best threshold any sigma gives the same boxes
NOISE_GRID_SIDE = 7
BASELINE_NAMES = ("gaussian", "random")


def create_baseline_maps(image: str, seed: int) -> dict[str, CanvasMap]:
    """The map of each baseline for an image, by its name."""
    maps = (create_center_map(), create_noise_map(image, seed))
    return dict(zip(BASELINE_NAMES, maps, strict=True))


@cache
def create_center_map() -> CanvasMap:
    """A Gaussian at the center: m = exp(-d^2 / 2 sigma^2), with sigma a quarter of the side."""
    offset = (np.arange(CANVAS_SIDE) + 0.5) / CANVAS_SIDE - 0.5
    values = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * GAUSSIAN_SIGMA**2))
    return create_canvas_map(normalize_array(values).astype(np.float32))


def create_noise_map(image: str, seed: int) -> CanvasMap:
    """Uniform noise on a 7 x 7 grid, upsampled like the map of a CNN; the same at every call."""
    generator = np.random.default_rng([seed, hash_image_name(image)])
    noise = generator.random((NOISE_GRID_SIDE, NOISE_GRID_SIDE), np.float32)
    return create_canvas_map(normalize_array(resize_map(noise, (CANVAS_SIDE, CANVAS_SIDE))))
