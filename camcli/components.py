"""What varies most in a layer: principal components of its pixels. Knows nothing of methods."""

from __future__ import annotations

import torch
from torch import Tensor


def principal(terms: Tensor) -> Tensor:
    """Each pixel along the first principal component of all: (B,C,H,W) -> (B,H,W).

    From the smaller of the two Gram matrices, C x C or HW x HW: their eigenvalues are the same.
    The sign goes with the sum over channels.
    """
    pixels = _pixels(terms)
    if pixels.shape[1] <= pixels.shape[2]:
        scores = _first(pixels @ pixels.mT)
    else:
        _, vectors = torch.linalg.eigh(pixels.mT @ pixels)
        scores = (pixels @ vectors[:, :, -1:])[..., 0]
    return _signed(scores, terms)


def kernel_principal(terms: Tensor) -> Tensor:
    """The first component of kernel PCA, K = tanh(a_i . a_j / C + 1): (B,C,H,W) -> (B,H,W)."""
    pixels = _pixels(terms)
    kernel = torch.tanh(pixels @ pixels.mT / pixels.shape[2] + 1)
    across, down = kernel.mean(dim=1, keepdim=True), kernel.mean(dim=2, keepdim=True)
    return _signed(_first(kernel - across - down + kernel.mean(dim=(1, 2), keepdim=True)), terms)


def _pixels(terms: Tensor) -> Tensor:
    """Pixels as rows, centred, in double precision: (B,C,H,W) -> (B,HW,C)."""
    pixels = terms.flatten(2).mT.double()
    centred: Tensor = pixels - pixels.mean(dim=1, keepdim=True)
    return centred


def _first(gram: Tensor) -> Tensor:
    """The first eigenvector times the root of its eigenvalue: (B,N,N) -> (B,N)."""
    values, vectors = torch.linalg.eigh(gram)
    scores: Tensor = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    return scores


def _signed(scores: Tensor, terms: Tensor) -> Tensor:
    maps = scores.reshape(len(terms), *terms.shape[2:])
    along = (maps * terms.sum(dim=1)).sum(dim=(1, 2), keepdim=True)
    return torch.where(along < 0, -maps, maps).to(terms.dtype)
