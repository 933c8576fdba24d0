"""Arithmetic of maps: normalise, clip, resize, merge crops, and find maps without an answer.

Maps are (B, H, W) tensors. Every function treats each image alone, so a batch gives the same maps
as its images one at a time.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from camcli.core.geometry import Crops
from camcli.core.types import MapStatus

MAP_STATUSES: tuple[MapStatus, ...] = get_args(MapStatus)


def normalize_maps(maps: Tensor) -> Tensor:
    """Min-max each map: (m - min m) / (max m - min m).

    (B, H, W) -> (B, H, W) in [0, 1]. A constant or non-finite map becomes zeros, so that it shows
    no contrast.
    """
    return normalize_tensor(maps, (1, 2))


def clip_maps(maps: Tensor, quantile: float) -> Tensor:
    """Limit each map to one of its quantiles, so that a few bright pixels do not darken the rest.

    (B, H, W) -> (B, H, W). A map stays as it is for quantile 1, or if the quantile is its minimum.
    """
    if quantile == 1:
        return maps
    top = maps.flatten(1).quantile(quantile, dim=1)[:, None, None]
    return maps.minimum(top.where(top > maps.amin(dim=(1, 2), keepdim=True), torch.inf))


def normalize_tensor(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Min-max any tensor over some dimensions; constant and non-finite slices become zeros."""
    low, high = values.amin(dim=dims, keepdim=True), values.amax(dim=dims, keepdim=True)
    span = high - low
    usable = torch.isfinite(span) & (span > 0)
    return torch.where(usable, (values - low) / torch.where(usable, span, 1), 0)


def resize_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly, with align_corners=False as images are resized: (B,h,w) -> (B,H,W)."""
    resized = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear")
    return resized[:, 0]


def merge_crop_maps(maps: Tensor, crops: Crops, size: tuple[int, int], *, mean: bool) -> Tensor:
    """Add up the maps of V crops, each at its place and with mirroring undone.

    (B V,h,w) -> (B,H,W). LayerCAM uses the sum. Fewer crops show the edges, so the sum makes edges
    darker. In a map of negative values it would make them brighter: use `mean` there, the mean over
    the crops that show a pixel.
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
    """The status of each map (B,H,W); `zero_gradient` (B,) marks maps whose gradients are all 0.

    Returns indices (B,) into MAP_STATUSES: the last status that applies. They stay on the device,
    so that the caller need not wait for it.
    """
    finite = torch.isfinite(maps).all(dim=2).all(dim=1)
    flat = maps.amax(dim=(1, 2)) <= maps.amin(dim=(1, 2))
    found = flat.long()  # constant, or ok
    found = found.masked_fill(zero_gradient, MAP_STATUSES.index("zero_gradient"))
    return found.masked_fill(~finite, MAP_STATUSES.index("non_finite"))


def sum_channels(terms: Tensor) -> Tensor:
    """The sum over channels without its negative part: relu(sum_k T_k). (B,C,H,W) -> (B,H,W)."""
    return terms.sum(dim=1).relu()
