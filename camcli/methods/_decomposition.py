"""Decompositions of a layer's pixels: principal components, kernel components, factors."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.core.rng import create_uniform_noise


def compute_principal_map(terms: Tensor) -> Tensor:
    """The first principal component of each image's pixels: (B,C,H,W) -> (B,H,W).

    It comes from the smaller of the two Gram matrices, C x C or HW x HW, which have the same
    eigenvalues. The sign is the one that correlates with the sum over channels.
    """
    pixels = _center_pixels(terms)
    if pixels.shape[1] <= pixels.shape[2]:
        scores = _compute_first_component(pixels @ pixels.mT)
    else:
        _, vectors = _compute_eigenvectors(pixels.mT @ pixels)
        scores = (pixels @ vectors[:, :, -1:])[..., 0]
    return _fix_sign(scores, terms)


def compute_kernel_principal_map(terms: Tensor) -> Tensor:
    """The first component of kernel PCA, K = tanh(a_i . a_j / C + 1): (B,C,H,W) -> (B,H,W)."""
    pixels = _center_pixels(terms)
    kernel = torch.tanh(pixels @ pixels.mT / pixels.shape[2] + 1)
    across, down = kernel.mean(dim=1, keepdim=True), kernel.mean(dim=2, keepdim=True)
    return _fix_sign(
        _compute_first_component(kernel - across - down + kernel.mean(dim=(1, 2), keepdim=True)),
        terms,
    )


def compute_factor_maps(terms: Tensor, factor_count: int, steps: int, seed: int) -> Tensor:
    """Non-negative factors of relu(terms): (B,C,H,W) -> maps (B,N,H,W), strongest first.

    Multiplicative updates (Lee and Seung) never increase |V - W H|. All images have the same start.
    """
    pixels = terms.relu().flatten(2).mT  # V (B,HW,C)
    size, channels = pixels.shape[1:]
    drawn = create_uniform_noise((factor_count, size + channels), seed).to(pixels) + 0.1
    scale = (pixels.mean(dim=(1, 2), keepdim=True) / factor_count).sqrt()
    maps, parts = drawn[:, :size].T * scale, drawn[:, size:] * scale
    tiny = torch.finfo(pixels.dtype).tiny
    for _ in range(steps):
        parts = parts * (maps.mT @ pixels) / (maps.mT @ maps @ parts).clamp(min=tiny)
        maps = maps * (pixels @ parts.mT) / (maps @ (parts @ parts.mT)).clamp(min=tiny)
    maps = maps * parts.norm(dim=2)[:, None]
    order = maps.sum(dim=1).argsort(dim=1, descending=True)
    sorted_maps: Tensor = maps.gather(2, order[:, None].expand_as(maps)).mT
    return sorted_maps.reshape(len(terms), factor_count, *terms.shape[2:])


def _center_pixels(terms: Tensor) -> Tensor:
    """Centred pixels as rows (B,HW,C), on the CPU: not every device has double precision."""
    pixels = terms.flatten(2).mT.cpu().double()
    centred: Tensor = pixels - pixels.mean(dim=1, keepdim=True)
    return centred


def _compute_first_component(gram: Tensor) -> Tensor:
    """The first eigenvector times the square root of its eigenvalue: (B,N,N) -> (B,N)."""
    values, vectors = _compute_eigenvectors(gram)
    scores: Tensor = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    return scores


def _compute_eigenvectors(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Ascending eigenvalues and their vectors; NaN only for matrices that are not finite."""
    sound = torch.isfinite(gram).all(dim=2).all(dim=1)[:, None, None]
    values, vectors = torch.linalg.eigh(gram.where(sound, 0))
    return values.where(sound[:, 0], torch.nan), vectors.where(sound, torch.nan)


def _fix_sign(scores: Tensor, terms: Tensor) -> Tensor:
    maps = scores.reshape(len(terms), *terms.shape[2:])
    along = (maps * terms.sum(dim=1).cpu()).sum(dim=(1, 2), keepdim=True)
    return torch.where(along < 0, -maps, maps).to(terms)


def eigen(terms: Tensor) -> Tensor:
    """relu of the first principal component of the channels: (B,C,H,W) -> (B,H,W).

    It reduces the noise of single channels. Source: eigen_smooth of pytorch-grad-cam, where the
    sign is arbitrary; here it is the one that correlates with the sum over channels.
    """
    return compute_principal_map(terms).relu()
