"""Random numbers that are the same for every image, batch and device. Knows nothing of methods."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(shape: tuple[int, ...], seed: int) -> Tensor:
    """U(0, 1), drawn on the CPU."""
    return torch.rand(shape, generator=_generator(seed))


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    """N(0, 1), drawn on the CPU."""
    return torch.randn(shape, generator=_generator(seed))


def noisy(inputs: Tensor, samples: int, share: float, seed: int) -> Iterator[Tensor]:
    """Copies of inputs (B,3,H,W) with Gaussian noise, its deviation a share of each one's range.

    Every image gets the same noise, so that a batch equals its singles.
    """
    high, low = (edge(dim=(1, 2, 3), keepdim=True) for edge in (inputs.amax, inputs.amin))
    generator = _generator(seed)
    for _ in range(samples):
        drawn = torch.randn(inputs.shape[1:], generator=generator).to(inputs)
        yield inputs + share * (high - low) * drawn
