"""Blur images line by line, with a kernel that is the same in both directions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d


def blur_with_mirror(images: Tensor, side: int, sigma: float) -> Tensor:
    """Blur images (B,C,H,W) with a Gaussian of `side` pixels, as if mirrored at their borders."""
    channels = images.flatten(0, 1)[:, None]
    padded = _pad_with_mirror(channels, side // 2)
    return convolve_lines(padded, _create_gaussian_weights(side, sigma)).reshape(images.shape)


def convolve_lines(padded: Tensor, weights: NDArray[np.float64]) -> Tensor:
    """Convolve rows, then columns, with an odd number of weights: (N,1,H,W), padded before."""
    row = torch.from_numpy(weights).to(padded)[None, None, None]
    return conv2d(conv2d(padded, row), row.transpose(2, 3))


def _pad_with_mirror(images: Tensor, width: int) -> Tensor:
    """Pad images (N,1,H,W) with their mirror image, as often as a wide kernel needs it."""
    rows, cols = (_list_mirrored_places(length, width) for length in images.shape[2:])
    return images[:, :, rows][:, :, :, cols]


def _list_mirrored_places(length: int, width: int) -> Tensor:
    """The place in a line of each place from `-width` to `length + width` - 1."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(-width, length + width) % period
    return places.minimum(period - places)


def _create_gaussian_weights(side: int, sigma: float) -> NDArray[np.float64]:
    offsets = np.arange(side) - side // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    normalized: NDArray[np.float64] = weights / weights.sum()
    return normalized
