"""Maps that have not seen the image: what a metric gives for nothing."""

from __future__ import annotations

from functools import cache

import numpy as np

from camcli.core.geometry import spread, upsample
from camcli.evaluation.datasets.annotations import code
from camcli.evaluation.metrics.scoring import SIDE, Heat, heat

SIGMA = 0.25  # of the side; at the best threshold it does not matter, every radius is tried
GRID = 7  # cells a side of the random map


@cache
def centre() -> Heat:
    """A Gaussian about the centre: m = exp(-d^2 / 2 sigma^2), sigma a quarter of the side."""
    offset = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    values = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * SIGMA**2))
    return heat(spread(values).astype(np.float32))


def random(image: str, seed: int) -> Heat:
    """Uniform noise on a 7 x 7 grid, upsampled as a CNN's map is; an image always gets the same."""
    generator = np.random.default_rng([seed, code(image)])
    noise = generator.random((GRID, GRID), np.float32)
    return heat(spread(upsample(noise, (SIDE, SIDE))))
