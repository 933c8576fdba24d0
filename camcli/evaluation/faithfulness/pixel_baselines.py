"""Baselines: maps that need no network, for comparison with every method."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from camcli.core.maps import resize_maps
from camcli.evaluation.baselines import GAUSSIAN_SIGMA, NOISE_GRID_SIDE
from camcli.evaluation.datasets.annotations import hash_image_name
from camcli.evaluation.faithfulness.faithfulness_options import RANDOM_CAM

GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R 601, of a three-channel image


def create_center_map(image: Tensor, image_name: str, seed: int) -> Tensor:
    """A Gaussian at the center: exp(-d^2 / 2 sigma^2), with sigma a quarter of the side."""
    rows, columns = ((torch.arange(side) + 0.5) / side - 0.5 for side in image.shape[1:])
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * GAUSSIAN_SIGMA**2))


def create_random_map(image: Tensor, image_name: str, seed: int) -> Tensor:
    """Uniform noise on a 7 x 7 grid, upsampled like the map of a CNN."""
    generator = np.random.default_rng([seed, hash_image_name(image_name)])
    noise = generator.random((NOISE_GRID_SIDE, NOISE_GRID_SIDE), np.float32)
    return resize_maps(torch.from_numpy(noise)[None], (image.shape[1], image.shape[2]))[0]


def create_sobel_map(image: Tensor, image_name: str, seed: int) -> Tensor:
    """The edges of the gray image: the length of Sobel's gradient.

    Linear imputation rebuilds images from their edges, so that ROAD flatters this map.
    """
    three = image.shape[0] == len(GRAY_WEIGHTS)
    weights = image.new_tensor(GRAY_WEIGHTS) if three else image.new_ones(len(image)) / len(image)
    gray = (image * weights[:, None, None]).sum(dim=0)[None, None]
    kernel = image.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    both = torch.stack([kernel, kernel.T])[:, None]
    edges = conv2d(pad(gray, [1] * 4, mode="replicate"), both)
    return edges.square().sum(dim=1).sqrt()[0].cpu()


BaselineMap = Callable[[Tensor, str, int], Tensor]
BASELINES: dict[str, BaselineMap | None] = {
    "center": create_center_map,
    "random": create_random_map,
    "sobel": create_sobel_map,
    RANDOM_CAM: None,
}
