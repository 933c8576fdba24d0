"""From raw maps to those that are shown: crops put together, layers scaled and fused, each judged.

Knows nothing of networks or of how maps are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from camcli.core.geometry import Crops
from camcli.core.maps import STATUSES, clipped, normalise, paste, statuses
from camcli.core.types import Layer, Status
from camcli.engine.fusion import fuse
from camcli.engine.request import Request
from camcli.methods.registry import Method


@dataclass(frozen=True, slots=True)
class Maps:
    """One map a sample: as computed (B,h,w), as shown in [0, 1], and what can be said of each.

    `codes` (B,) are places in STATUSES.
    """

    name: str
    values: Tensor
    shown: Tensor
    codes: Tensor

    @property
    def status(self) -> list[Status]:
        """What can be said of each, in words."""
        return [STATUSES[code] for code in self.codes.tolist()]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One class a sample (B,): its probability, and how many classes rank above it.

    `weights` (B,K) is the score that is explained, as a sum over logits: 1 for the class alone.
    """

    classes: Tensor
    scores: Tensor
    ranks: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True)
class Explained:
    """What one request found for one target of every sample."""

    request: Request
    chosen: Chosen
    fused: Maps
    layers: tuple[Maps, ...]
    parts: tuple[Maps, ...] = ()


@dataclass(frozen=True, slots=True)
class Canvas:
    """Where a sample's maps lie: each as it is, or those of its crops put together."""

    inputs: tuple[int, int]
    crops: Crops | None

    @property
    def views(self) -> int:
        """How many inputs a sample is."""
        return len(self.crops.corners) if self.crops else 1

    @property
    def size(self) -> tuple[int, int]:
        """The size (H, W) at which layers are fused."""
        return self.crops.size if self.crops else self.inputs

    def whole(self, maps: Tensor, method: Method) -> Tensor:
        """One map a sample: (B V,h,w) -> (B,H,W), or as they are."""
        return paste(maps, self.crops, self.inputs, mean=method.signed) if self.crops else maps

    def all_of(self, flags: Tensor) -> Tensor:
        """Whether it holds for all inputs of a sample: (B V,) -> (B,)."""
        return flags.reshape(-1, self.views).all(dim=1)


@dataclass(frozen=True, slots=True)
class Raw:
    """The maps of one request and target as they come: (B V,h,w) by name.

    `dead` has for each layer whether its gradients (B V,) were all zero.
    """

    maps: dict[str, Tensor]
    dead: dict[str, Tensor] = field(default_factory=dict)

    def flipped(self) -> Raw:
        """Of a mirrored view, turned back."""
        return Raw({name: maps.flip(2) for name, maps in self.maps.items()}, self.dead)


def mean(views: Sequence[Raw]) -> Raw:
    """The maps of several views, averaged; dead where all are."""
    first, *others = views
    if not others:
        return first
    maps = {n: torch.stack([v.maps[n] for v in views]).mean(dim=0) for n in first.maps}
    return Raw(maps, {n: torch.stack([v.dead[n] for v in views]).all(dim=0) for n in first.dead})


@torch.no_grad()
def finished(request: Request, raw: Raw, chosen: Chosen, canvas: Canvas) -> Explained:
    """Maps of samples from those of inputs, scaled, fused and judged."""
    if request.method.per_layer:
        layers = tuple(_layer(request, layer, raw, canvas) for layer in request.layers)
        fused = layers[0] if len(layers) == 1 else _fused(request, layers, canvas.size)
        own = {layer.name for layer in request.layers}
        others = {name: maps for name, maps in raw.maps.items() if name not in own}
        return Explained(request, chosen, fused, layers, _all(request, others, canvas))
    blocks = {la.name for la in request.read}
    fused, *rest = _all(request, raw.maps, canvas)
    parts = tuple(maps for maps in rest if maps.name not in blocks)
    return Explained(
        request, chosen, fused, tuple(maps for maps in rest if maps.name in blocks), parts
    )


def _all(request: Request, raw: Mapping[str, Tensor], canvas: Canvas) -> tuple[Maps, ...]:
    method = request.method
    return tuple(
        _maps(name, canvas.whole(values, method), peak=method.clip_quantile)
        for name, values in raw.items()
    )


def _layer(request: Request, layer: Layer, raw: Raw, canvas: Canvas) -> Maps:
    values = canvas.whole(raw.maps[layer.name], request.method)
    stride = canvas.inputs[0] / layer.grid[0]
    shown = request.fusion.scale(clipped(values, request.method.clip_quantile), stride)
    return Maps(layer.name, values, shown, statuses(values, canvas.all_of(raw.dead[layer.name])))


def _fused(request: Request, layers: Sequence[Maps], size: tuple[int, int]) -> Maps:
    values = fuse([layer.shown for layer in layers], request.fusion, size)
    zero = STATUSES.index("zero_gradient")
    dead = torch.stack([layer.codes == zero for layer in layers]).all(dim=0)
    return _maps("fused", values, dead)


def _maps(name: str, values: Tensor, dead: Tensor | None = None, peak: float = 1.0) -> Maps:
    flags = values.new_zeros(len(values), dtype=torch.bool) if dead is None else dead
    return Maps(name, values, normalise(clipped(values, peak)), statuses(values, flags))
