"""Random numbers that do not depend on the image, the batch or the device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def _create_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def create_uniform_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw from U(0, 1) on the CPU."""
    return torch.rand(shape, generator=_create_generator(seed))


def create_normal_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw from N(0, 1) on the CPU."""
    return torch.randn(shape, generator=_create_generator(seed))


def iter_noisy_copies(
    inputs: Tensor, copy_count: int, noise_level: float, seed: int
) -> Iterator[Tensor]:
    """Yield copies of inputs (B,3,H,W) with Gaussian noise.

    The noise's standard deviation is `noise_level` times the range of each image. Every image gets
    the same noise, so that a batch gives the same maps as its images one at a time.
    """
    high, low = (edge(dim=(1, 2, 3), keepdim=True) for edge in (inputs.amax, inputs.amin))
    generator = _create_generator(seed)
    for _ in range(copy_count):
        drawn = torch.randn(inputs.shape[1:], generator=generator).to(inputs)
        yield inputs + noise_level * (high - low) * drawn
