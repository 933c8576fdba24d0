"""Random numbers that are the same for every image, batch and device. Knows nothing of methods."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def _create_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def create_uniform_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """U(0, 1), drawn on the CPU."""
    return torch.rand(shape, generator=_create_generator(seed))


def create_normal_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """N(0, 1), drawn on the CPU."""
    return torch.randn(shape, generator=_create_generator(seed))


def iter_noisy_copies(
    inputs: Tensor, copy_count: int, noise_level: float, seed: int
) -> Iterator[Tensor]:
    """Copies of inputs (B,3,H,W) with Gaussian noise, its deviation a share of each one's range.

    Every image gets the same noise, so that a batch equals its singles.
    """
    high, low = (edge(dim=(1, 2, 3), keepdim=True) for edge in (inputs.amax, inputs.amin))
    generator = _create_generator(seed)
    for _ in range(copy_count):
        drawn = torch.randn(inputs.shape[1:], generator=generator).to(inputs)
        yield inputs + noise_level * (high - low) * drawn
