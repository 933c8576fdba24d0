"""Arithmetic of refinement: affinity between the positions of an image, and the guided filter."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.core.maps import resize_maps


def compute_feature_affinity(features: Tensor, power: float) -> Tensor:
    """How similar the features of each two positions are: A_ij = max(0, cos(f_i, f_j))^power.

    (B,C,h,w) -> (B,hw,hw), in [0, 1]. A position without features is similar to itself only.
    The idea is that of CLIP-ES (arXiv 2212.09506) and PCM (arXiv 2004.04581), without training.
    """
    vectors = features.flatten(2).transpose(1, 2)
    lengths = vectors.norm(dim=2, keepdim=True)
    units = vectors / lengths.where(lengths > 0, 1)
    affinity: Tensor = (units @ units.transpose(1, 2)).clamp(0, 1)
    affinity.diagonal(dim1=1, dim2=2).fill_(1)
    return affinity.pow(power)


def normalize_affinity(affinity: Tensor, sinkhorn: int) -> Tensor:
    """Scale the rows of an affinity (B,N,N) to sum 1; first `sinkhorn` times columns and rows.

    With many steps the columns sum to 1 too, so that no position weighs more than others.
    """
    for _ in range(sinkhorn):
        affinity = _divide_by_sums(_divide_by_sums(affinity, dim=2), dim=1)
    return _divide_by_sums(affinity, dim=2)


def _divide_by_sums(affinity: Tensor, dim: int) -> Tensor:
    sums = affinity.sum(dim=dim, keepdim=True)
    return affinity / sums.where(sums > 0, 1)


def spread_maps(maps: Tensor, affinity: Tensor, grid: tuple[int, int]) -> Tensor:
    """Let each position get the mean of the positions that are similar to it: M' = P relu(M).

    Maps (B,h,w) are first brought to the grid of the affinity P (B,N,N): -> (B,H,W), H W = N.
    """
    own = bring_to_grid(maps.relu(), grid)
    return (affinity @ own.flatten(1)[:, :, None]).reshape(-1, *grid)


def bring_to_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps (B,h,w) at another size: the mean over each cell where they shrink, else bilinear."""
    if maps.shape[1] > grid[0] or maps.shape[2] > grid[1]:
        return torch.nn.functional.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]
    return resize_maps(maps, grid)


def filter_guided(maps: Tensor, images: Tensor, radius: int, epsilon: float) -> Tensor:
    """Guided filter: in each window the map becomes a linear function of the image's colours.

    a = (cov(I, I) + epsilon)^-1 cov(I, M), b = mean M - a . mean I, M' = mean a . I + mean b; means
    are over windows of 2 `radius` + 1 pixels. Maps (B,h,w) are enlarged to the images (B,C,H,W) in
    [0, 1] first: -> (B,H,W), at least 0. Source: He et al., TPAMI 2013.
    """
    size = (images.shape[2], images.shape[3])
    values = resize_maps(maps.relu(), size)[:, None]

    def mean(tensor: Tensor) -> Tensor:
        return _average_windows(tensor, radius)

    color, level = mean(images), mean(values)
    channels = images.shape[1]
    products = (images[:, :, None] * images[:, None]).flatten(1, 2)
    spread = mean(products) - (color[:, :, None] * color[:, None]).flatten(1, 2)
    matrix = spread.permute(0, 2, 3, 1).reshape(-1, *size, channels, channels)
    matrix = matrix + epsilon * torch.eye(channels, device=images.device)
    together = (mean(images * values) - color * level).permute(0, 2, 3, 1)
    slope = torch.linalg.solve(matrix, together[..., None])[..., 0].permute(0, 3, 1, 2)
    offset = level - (slope * color).sum(dim=1, keepdim=True)
    return ((mean(slope) * images).sum(dim=1) + mean(offset)[:, 0]).relu()


def _average_windows(tensor: Tensor, radius: int) -> Tensor:
    """The mean over the part of each window that lies in the image, by separate sums."""
    for kernel, pad in (((2 * radius + 1, 1), (radius, 0)), ((1, 2 * radius + 1), (0, radius))):
        tensor = torch.nn.functional.avg_pool2d(
            tensor, kernel, stride=1, padding=pad, count_include_pad=False
        )
    return tensor
