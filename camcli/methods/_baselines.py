"""Images without content, and integrals of the gradient on the straight way from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from operator import add

import torch
from torch import Tensor

BLUR_SHARE = 0.1  # the sigma of a blurred baseline, as a share of the shorter side
TRUNCATION = 4  # a Gaussian kernel ends after so many standard deviations


def create_baseline(name: str, inputs: Tensor, color_range: Tensor) -> Tensor:
    """The baseline "mean", "black", "white" or "blur" of inputs (B,C,H,W): as large, or (C,1,1).

    `color_range` (2,C,1,1) is black and white.
    """
    if name == "blur":
        return blur_inputs(inputs, BLUR_SHARE * min(inputs.shape[2:]))
    plain = {"black": color_range[0], "white": color_range[1]}
    return plain.get(name, torch.zeros_like(color_range[0]))


def blur_inputs(inputs: Tensor, sigma: float) -> Tensor:
    """Blur inputs (B,C,H,W) with a Gaussian; beyond the border they are 0."""
    down, across = (_create_blur_matrix(side, sigma).to(inputs) for side in inputs.shape[2:])
    return down @ inputs @ across


def _create_blur_matrix(side: int, sigma: float) -> Tensor:
    """A Gaussian kernel at every position of a row, as a matrix (side, side)."""
    offsets = torch.arange(side, dtype=torch.float64)
    distances = (offsets[:, None] - offsets).abs()
    radius = int(TRUNCATION * sigma + 0.5)
    if not radius:
        return torch.eye(side, dtype=torch.float64)
    taps = torch.arange(-radius, radius + 1, dtype=torch.float64)
    whole = torch.exp(-0.5 * (taps / sigma) ** 2).sum()
    kernel = torch.exp(-0.5 * (distances / sigma) ** 2) / whole
    return kernel.where(distances <= radius, 0)


def integrate_slope(
    slope: Callable[[Tensor], Tensor], start: Tensor, inputs: Tensor, steps: int
) -> Tensor:
    """The contribution of each value of the inputs on the straight way from `start`: (B,C,H,W)."""
    way = inputs - start
    path = iter_nodes(steps)
    return way * reduce(add, (weight * slope(start + node * way) for node, weight in path))


def iter_nodes(steps: int) -> Iterator[tuple[float, float]]:
    """Yield the nodes in [0, 1] of Gauss-Legendre quadrature, each with its weight."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(steps)
    yield from zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True)
