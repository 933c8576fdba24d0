"""Normalise, resize, fuse. Knows nothing of models.

Maps are (B, H, W) tensors; all of it works a sample at a time, so a batch equals its singles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from camcli.components import principal
from camcli.records import Crops, Floats, Status, View

STATUSES: tuple[Status, ...] = ("ok", "constant", "zero_gradient", "non_finite")

Array = TypeVar("Array", NDArray[np.float32], NDArray[np.float64])


def normalise(maps: Tensor) -> Tensor:
    """Min-max over each map: (m - min m) / (max m - min m). Zeros where that has no meaning.

    (B, H, W) -> (B, H, W) in [0, 1]. A constant or non-finite map becomes zeros: no contrast is
    invented.
    """
    return scaled(maps, (1, 2))


def clipped(maps: Tensor, peak: float) -> Tensor:
    """Each map cut at a quantile of its own, for single pixels must not leave all others dark.

    (B, H, W) -> (B, H, W). As it is for 1, and where the quantile is the minimum.
    """
    if peak == 1:
        return maps
    top = maps.flatten(1).quantile(peak, dim=1)[:, None, None]
    return maps.minimum(top.where(top > maps.amin(dim=(1, 2), keepdim=True), torch.inf))


def scaled(values: Tensor, over: tuple[int, ...]) -> Tensor:
    """Min-max over some dimensions of any tensor; zeros where that has no meaning."""
    low, high = values.amin(dim=over, keepdim=True), values.amax(dim=over, keepdim=True)
    span = high - low
    usable = torch.isfinite(span) & (span > 0)
    return torch.where(usable, (values - low) / torch.where(usable, span, 1), 0)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel centres aligned as images are (align_corners=False): (B,h,w) -> (B,H,W)."""
    resized = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear")
    return resized[:, 0]


def paste(maps: Tensor, crops: Crops, size: tuple[int, int], *, mean: bool) -> Tensor:
    """Crops' maps summed where each was cut, mirrors undone: (B V,h,w) -> (B,H,W).

    The sum is LayerCAM's. It dims the edges, which fewer crops show, and so it would brighten them
    in a map of negative values: for those take the `mean` over the crops that show a pixel.
    """
    rows, cols = size
    each = resize(maps, size).reshape(-1, len(crops.corners), rows, cols)
    whole, times = maps.new_zeros((len(each), *crops.size)), maps.new_zeros(crops.size)
    for v, (y, x, mirrored) in enumerate(crops.corners):
        part = each[:, v].flip(-1) if mirrored else each[:, v]
        whole[:, y : y + rows, x : x + cols] += part
        times[y : y + rows, x : x + cols] += 1
    return whole / times.clamp(min=1) if mean else whole


def statuses(maps: Tensor, zero_gradient: Tensor) -> Tensor:
    """What can be said of each map (B, H, W), given whether its gradients (B,) were all zero.

    (B,) of places in STATUSES: the worst that holds. It stays on the device, which need not be
    waited for.
    """
    finite = torch.isfinite(maps).all(dim=2).all(dim=1)
    flat = maps.amax(dim=(1, 2)) <= maps.amin(dim=(1, 2))
    found = flat.long()  # constant, or ok
    found = found.masked_fill(zero_gradient, STATUSES.index("zero_gradient"))
    return found.masked_fill(~finite, STATUSES.index("non_finite"))


def summed(terms: Tensor) -> Tensor:
    """What all channels say together: relu(sum_k T_k). (B,C,H,W) -> (B,H,W)."""
    return terms.sum(dim=1).relu()


def eigen(terms: Tensor) -> Tensor:
    """What channels have in common: relu of their first principal component, (B,C,H,W) -> (B,H,W).

    Smooths what single noisy channels say. Source: pytorch-grad-cam's eigen_smooth; the sign, which
    it leaves to chance, goes with the sum over channels.
    """
    return principal(terms).relu()


@dataclass(frozen=True, slots=True)
class Fusion:
    """A way to make one map of several layers' maps: scale each by itself, then combine all."""

    combine: Callable[[Tensor], Tensor]  # (L, B, H, W) in [0, 1] -> (B, H, W)
    scale: Callable[[Tensor, float], Tensor] = lambda maps, _stride: normalise(maps)


def layercam_scale(maps: Tensor, stride: float, gamma: float = 2.0) -> Tensor:
    """LayerCAM's scaling: tanh(gamma M / max M) on shallow layers, then min-max to [0, 1].

    Shallow are VGG16's stages 1 to 3 in the paper: those of a stride below 16 pixels.
    (B, h, w) -> (B, h, w). Source: TIP 2021, section IV.
    """
    if stride < 16:
        peak = maps.amax(dim=(1, 2), keepdim=True)
        maps = torch.where(peak > 0, (gamma * maps / torch.where(peak > 0, peak, 1)).tanh(), maps)
    return normalise(maps)


FUSIONS: Mapping[str, Fusion] = {
    "max": Fusion(lambda stack: stack.amax(dim=0)),
    "mean": Fusion(lambda stack: stack.mean(dim=0)),
    "product": Fusion(lambda stack: stack.prod(dim=0)),
    "layercam": Fusion(lambda stack: stack.amax(dim=0), layercam_scale),
}


def fuse(scaled: Sequence[Tensor], fusion: Fusion, size: tuple[int, int]) -> Tensor:
    """One map (B, H, W) of the input's size from several scaled ones of any size."""
    return fusion.combine(torch.stack([resize(maps, size) for maps in scaled]))


def upsample(shown: Floats, size: tuple[int, int]) -> Floats:
    """`resize` for one map off the device, in a thread that does not hold the interpreter."""
    resized = Image.fromarray(shown).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def spread(values: Array) -> Array:
    """`normalise` for one array of finite values off the device; zeros where nothing varies."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def visible(shown: Floats, view: View, size: tuple[int, int]) -> Floats:
    """The part of a map that shows the image, at the resolution of the model's input (H, W).

    Min-maxed once upsampled and once padding is off: (h, w) -> (h', w') in [0, 1].
    """
    x0, y0, x1, y1 = view.window(*size)
    return spread(upsample(shown, size)[y0:y1, x0:x1])


def to_original(part: Floats, view: View) -> Floats:
    """The visible part of a map, back on the upright original: (h', w') -> (height, width).

    What a crop left out is NaN, for nothing is known of it.
    """
    left, top, right, bottom = view.pixels
    whole = np.full((view.height, view.width), np.nan, np.float32)
    whole[top:bottom, left:right] = upsample(part, (bottom - top, right - left))
    return whole
