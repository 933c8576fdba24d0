"""Normalise, resize, fuse. Knows nothing of models.

Maps are (B, H, W) tensors; all of it works a sample at a time, so a batch equals its singles.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from camcli.core.geometry import Crops
from camcli.core.types import MapStatus

MAP_STATUSES: tuple[MapStatus, ...] = get_args(MapStatus)


def normalize_maps(maps: Tensor) -> Tensor:
    """Min-max over each map: (m - min m) / (max m - min m). Zeros where that has no meaning.

    (B, H, W) -> (B, H, W) in [0, 1]. A constant or non-finite map becomes zeros: no contrast is
    invented.
    """
    return normalize_tensor(maps, (1, 2))


def clip_maps(maps: Tensor, quantile: float) -> Tensor:
    """Each map cut at a quantile of its own, for single pixels must not leave all others dark.

    (B, H, W) -> (B, H, W). As it is for 1, and where the quantile is the minimum.
    """
    if quantile == 1:
        return maps
    top = maps.flatten(1).quantile(quantile, dim=1)[:, None, None]
    return maps.minimum(top.where(top > maps.amin(dim=(1, 2), keepdim=True), torch.inf))


def normalize_tensor(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Min-max over some dimensions of any tensor; zeros where that has no meaning."""
    low, high = values.amin(dim=dims, keepdim=True), values.amax(dim=dims, keepdim=True)
    span = high - low
    usable = torch.isfinite(span) & (span > 0)
    return torch.where(usable, (values - low) / torch.where(usable, span, 1), 0)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel centres aligned as images are (align_corners=False): (B,h,w) -> (B,H,W)."""
    resized = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear")
    return resized[:, 0]


def merge_crop_maps(maps: Tensor, crops: Crops, size: tuple[int, int], *, mean: bool) -> Tensor:
    """Crops' maps summed where each was cut, mirrors undone: (B V,h,w) -> (B,H,W).

    The sum is LayerCAM's. It dims the edges, which fewer crops show, and so it would brighten them
    in a map of negative values: for those take the `mean` over the crops that show a pixel.
    """
    rows, cols = size
    each = resize_maps(maps, size).reshape(-1, len(crops.corners), rows, cols)
    whole, times = (
        maps.new_zeros((len(each), *crops.canvas_size)),
        maps.new_zeros(crops.canvas_size),
    )
    for v, (y, x, mirrored) in enumerate(crops.corners):
        part = each[:, v].flip(-1) if mirrored else each[:, v]
        whole[:, y : y + rows, x : x + cols] += part
        times[y : y + rows, x : x + cols] += 1
    return whole / times.clamp(min=1) if mean else whole


def compute_status_codes(maps: Tensor, zero_gradient: Tensor) -> Tensor:
    """What can be said of each map (B, H, W), given whether its gradients (B,) were all zero.

    (B,) of places in STATUSES: the worst that holds. It stays on the device, which need not be
    waited for.
    """
    finite = torch.isfinite(maps).all(dim=2).all(dim=1)
    flat = maps.amax(dim=(1, 2)) <= maps.amin(dim=(1, 2))
    found = flat.long()  # constant, or ok
    found = found.masked_fill(zero_gradient, MAP_STATUSES.index("zero_gradient"))
    return found.masked_fill(~finite, MAP_STATUSES.index("non_finite"))


def sum_channels(terms: Tensor) -> Tensor:
    """What all channels say together: relu(sum_k T_k). (B,C,H,W) -> (B,H,W)."""
    return terms.sum(dim=1).relu()
