"""Maps that have not seen the image: what a metric gives for nothing."""

from __future__ import annotations

from functools import cache

import numpy as np

from camcli.core.geometry import normalize_array, resize_map
from camcli.evaluation.datasets.annotations import hash_image_name
from camcli.evaluation.metrics.scoring import CANVAS_SIDE, CanvasMap, create_canvas_map

GAUSSIAN_SIGMA = (
    0.25  # of the side; at the best threshold it does not matter, every radius is tried
)
NOISE_GRID_SIDE = 7  # cells a side of the random map


@cache
def create_center_map() -> CanvasMap:
    """A Gaussian about the centre: m = exp(-d^2 / 2 sigma^2), sigma a quarter of the side."""
    offset = (np.arange(CANVAS_SIDE) + 0.5) / CANVAS_SIDE - 0.5
    values = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * GAUSSIAN_SIGMA**2))
    return create_canvas_map(normalize_array(values).astype(np.float32))


def create_noise_map(image: str, seed: int) -> CanvasMap:
    """Uniform noise on a 7 x 7 grid, upsampled as a CNN's map is; an image always gets the same."""
    generator = np.random.default_rng([seed, hash_image_name(image)])
    noise = generator.random((NOISE_GRID_SIDE, NOISE_GRID_SIDE), np.float32)
    return create_canvas_map(normalize_array(resize_map(noise, (CANVAS_SIDE, CANVAS_SIDE))))
