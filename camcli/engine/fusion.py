"""Fuse the maps of several layers into one: scale each, then combine all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.core.maps import normalize_maps, resize_maps


@dataclass(frozen=True, slots=True)
class Fusion:
    """A way to fuse maps: scale each layer's maps by themselves, then combine all layers."""

    combine: Callable[[Tensor], Tensor]  # (L, B, H, W) in [0, 1] -> (B, H, W)
    scale: Callable[[Tensor, float], Tensor] = lambda maps, _stride: normalize_maps(maps)


def scale_for_layercam(maps: Tensor, stride: float, gamma: float = 2.0) -> Tensor:
    """LayerCAM's scaling: tanh(gamma M / max M) on shallow layers, then min-max to [0, 1].

    Layers with a stride below 16 pixels count as shallow; in the paper these are VGG16's stages 1
    to 3.
    (B, h, w) -> (B, h, w). Source: TIP 2021, section IV.
    """
    if stride < 16:
        peak = maps.amax(dim=(1, 2), keepdim=True)
        divisor = torch.where(peak > 0, peak, 1)
        maps = torch.where(peak > 0, (gamma * maps / divisor).tanh(), maps)
    return normalize_maps(maps)


FUSIONS: Mapping[str, Fusion] = {
    "max": Fusion(lambda stack: stack.amax(dim=0)),
    "mean": Fusion(lambda stack: stack.mean(dim=0)),
    "product": Fusion(lambda stack: stack.prod(dim=0)),
    "layercam": Fusion(lambda stack: stack.amax(dim=0), scale_for_layercam),
}


def fuse_maps(scaled: Sequence[Tensor], fusion: Fusion, size: tuple[int, int]) -> Tensor:
    """Resize scaled maps (B, h, w) of several layers to one size, and combine them: (B, H, W)."""
    return fusion.combine(torch.stack([resize_maps(maps, size) for maps in scaled]))
