"""From raw maps to those that are shown: crops put together, layers scaled and fused, each judged.

Knows nothing of networks or of how maps are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from camcli.core.geometry import Crops
from camcli.core.maps import (
    MAP_STATUSES,
    clip_maps,
    compute_status_codes,
    merge_crop_maps,
    normalize_maps,
)
from camcli.core.types import Layer, MapStatus
from camcli.engine.fusion import fuse_maps
from camcli.engine.request import Request
from camcli.methods.registry import Method


@dataclass(frozen=True, slots=True)
class MapBatch:
    """One map a sample: as computed (B,h,w), as shown in [0, 1], and what can be said of each.

    `codes` (B,) are places in STATUSES.
    """

    name: str
    values: Tensor
    shown: Tensor
    status_codes: Tensor

    @property
    def status_names(self) -> list[MapStatus]:
        """What can be said of each, in words."""
        return [MAP_STATUSES[code] for code in self.status_codes.tolist()]


@dataclass(frozen=True, slots=True)
class TargetScores:
    """One class a sample (B,): its probability, and how many classes rank above it.

    `weights` (B,K) is the score that is explained, as a sum over logits: 1 for the class alone.
    """

    class_indices: Tensor
    scores: Tensor
    ranks: Tensor
    logit_weights: Tensor


@dataclass(frozen=True, slots=True)
class BatchExplanation:
    """What one request found for one target of every sample."""

    request: Request
    target_scores: TargetScores
    fused: MapBatch
    layers: tuple[MapBatch, ...]
    parts: tuple[MapBatch, ...] = ()


@dataclass(frozen=True, slots=True)
class CropLayout:
    """Where a sample's maps lie: each as it is, or those of its crops put together."""

    input_size: tuple[int, int]
    crops: Crops | None

    @property
    def inputs_per_sample(self) -> int:
        """How many inputs a sample is."""
        return len(self.crops.corners) if self.crops else 1

    @property
    def fused_size(self) -> tuple[int, int]:
        """The size (H, W) at which layers are fused."""
        return self.crops.canvas_size if self.crops else self.input_size

    def merge_crops(self, maps: Tensor, method: Method) -> Tensor:
        """One map a sample: (B V,h,w) -> (B,H,W), or as they are."""
        return (
            merge_crop_maps(maps, self.crops, self.input_size, mean=method.signed)
            if self.crops
            else maps
        )

    def reduce_flags(self, flags: Tensor) -> Tensor:
        """Whether it holds for all inputs of a sample: (B V,) -> (B,)."""
        return flags.reshape(-1, self.inputs_per_sample).all(dim=1)


@dataclass(frozen=True, slots=True)
class RawMaps:
    """The maps of one request and target as they come: (B V,h,w) by name.

    `dead` has for each layer whether its gradients (B V,) were all zero.
    """

    maps: dict[str, Tensor]
    zero_gradient: dict[str, Tensor] = field(default_factory=dict)

    def flip(self) -> RawMaps:
        """Of a mirrored view, turned back."""
        return RawMaps({name: maps.flip(2) for name, maps in self.maps.items()}, self.zero_gradient)


def average_raw_maps(views: Sequence[RawMaps]) -> RawMaps:
    """The maps of several views, averaged; dead where all are."""
    first, *others = views
    if not others:
        return first
    maps = {n: torch.stack([v.maps[n] for v in views]).mean(dim=0) for n in first.maps}
    return RawMaps(
        maps,
        {
            n: torch.stack([v.zero_gradient[n] for v in views]).all(dim=0)
            for n in first.zero_gradient
        },
    )


@torch.no_grad()
def create_batch_explanation(
    request: Request, raw: RawMaps, target_scores: TargetScores, crop_layout: CropLayout
) -> BatchExplanation:
    """Maps of samples from those of inputs, scaled, fused and judged."""
    if request.method.per_layer:
        layers = tuple(
            _create_layer_maps(request, layer, raw, crop_layout) for layer in request.layers
        )
        fused = (
            layers[0]
            if len(layers) == 1
            else _create_fused_maps(request, layers, crop_layout.fused_size)
        )
        own = {layer.name for layer in request.layers}
        others = {name: maps for name, maps in raw.maps.items() if name not in own}
        return BatchExplanation(
            request, target_scores, fused, layers, _create_map_batches(request, others, crop_layout)
        )
    blocks = {la.name for la in request.source_layers}
    fused, *rest = _create_map_batches(request, raw.maps, crop_layout)
    parts = tuple(maps for maps in rest if maps.name not in blocks)
    return BatchExplanation(
        request, target_scores, fused, tuple(maps for maps in rest if maps.name in blocks), parts
    )


def _create_map_batches(
    request: Request, raw: Mapping[str, Tensor], crop_layout: CropLayout
) -> tuple[MapBatch, ...]:
    method = request.method
    return tuple(
        _create_map_batch(
            name, crop_layout.merge_crops(values, method), clip_quantile=method.clip_quantile
        )
        for name, values in raw.items()
    )


def _create_layer_maps(
    request: Request, layer: Layer, raw: RawMaps, crop_layout: CropLayout
) -> MapBatch:
    values = crop_layout.merge_crops(raw.maps[layer.name], request.method)
    stride = crop_layout.input_size[0] / layer.grid[0]
    shown = request.fusion.scale(clip_maps(values, request.method.clip_quantile), stride)
    return MapBatch(
        layer.name,
        values,
        shown,
        compute_status_codes(values, crop_layout.reduce_flags(raw.zero_gradient[layer.name])),
    )


def _create_fused_maps(
    request: Request, layers: Sequence[MapBatch], size: tuple[int, int]
) -> MapBatch:
    values = fuse_maps([layer.shown for layer in layers], request.fusion, size)
    zero = MAP_STATUSES.index("zero_gradient")
    dead = torch.stack([layer.status_codes == zero for layer in layers]).all(dim=0)
    return _create_map_batch("fused", values, dead)


def _create_map_batch(
    name: str, values: Tensor, zero_gradient: Tensor | None = None, clip_quantile: float = 1.0
) -> MapBatch:
    flags = (
        values.new_zeros(len(values), dtype=torch.bool) if zero_gradient is None else zero_gradient
    )
    return MapBatch(
        name,
        values,
        normalize_maps(clip_maps(values, clip_quantile)),
        compute_status_codes(values, flags),
    )
