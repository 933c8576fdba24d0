"""Fills: what stands in place of removed pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from camcli.core.blur import blur_with_mirror, convolve_lines
from camcli.core.rng import create_normal_noise
from camcli.core.types import Transform
from camcli.evaluation.faithfulness.faithfulness_options import (
    RISE_KERNEL_SIDE,
    RISE_SIGMA,
    Blur,
    FillName,
)
from camcli.evaluation.faithfulness.linear_fill import fill_linearly

NOISE_LEVEL = 0.01  # standard deviation, in units where the image is in [0, 1]


@dataclass(frozen=True, slots=True)
class Fills:
    """The fills of one image (C,H,W): a whole picture for all but the linear fill."""

    image: Tensor
    blurred: Tensor
    noise: Tensor

    def remove(self, fill: FillName, missing: Tensor) -> Tensor:
        """The image with pixels replaced: masks (M,H,W) -> (M,C,H,W)."""
        if fill == "linear":
            return self._remove_linearly(missing)
        return torch.where(missing[:, None], self.create_blank(fill), self.image)

    def create_blank(self, fill: FillName) -> Tensor:
        """The picture (C,H,W) with all pixels replaced; for the linear fill, the mean color."""
        if fill == "zero":
            return torch.zeros_like(self.image)
        if fill == "blur":
            return self.blurred
        return self.image.mean(dim=(1, 2), keepdim=True).expand_as(self.image)

    def _remove_linearly(self, missing: Tensor) -> Tensor:
        filled = fill_linearly(self.image.expand(len(missing), *self.image.shape), missing)
        return torch.where(missing[:, None], filled + self.noise, self.image)


def create_fills(image: Tensor, transform: Transform, blur: Blur, seed: int) -> Fills:
    """Prepare the fills of one normalized image (C,H,W). The noise depends on `seed` only."""
    std = torch.tensor(transform.std, dtype=image.dtype)[:, None, None]
    noise = create_normal_noise(tuple(image.shape), seed).to(image.dtype) * NOISE_LEVEL / std
    return Fills(image, blur_image(image, blur), noise.to(image.device))


def blur_image(image: Tensor, blur: Blur) -> Tensor:
    """Blur an image (C,H,W). RISE's kernel sees 0 beyond the border, others a mirror image."""
    if blur.sigma is not None:
        return blur_with_mirror(image[None], blur.side, blur.sigma)[0]
    weights = _create_rise_weights()
    padded = pad(image[:, None], [len(weights) // 2] * 4)
    return convolve_lines(padded, weights)[:, 0]


def _create_rise_weights() -> NDArray[np.float64]:
    """One side of RISE's kernel: a Gaussian filter over a single 1 in 11 pixels.

    The filter mirrors at the border of these 11 pixels, so that the kernel is nearly flat.
    """
    from scipy.ndimage import gaussian_filter1d

    impulse = np.zeros(RISE_KERNEL_SIDE)
    impulse[RISE_KERNEL_SIDE // 2] = 1
    weights: NDArray[np.float64] = gaussian_filter1d(impulse, RISE_SIGMA)
    return weights
