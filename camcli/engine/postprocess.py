"""Turn the maps that methods return into the maps to show: join crops, fuse layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from camcli.core.geometry import Crops
from camcli.core.maps import (
    MAP_STATUSES,
    clip_maps,
    compute_status_codes,
    merge_crop_maps,
    normalize_maps,
    resize_maps,
)
from camcli.core.types import MapStatus
from camcli.engine.fusion import Fusion, fuse_maps
from camcli.engine.request import Request
from camcli.methods.registry import Method


@dataclass(frozen=True, slots=True)
class MapBatch:
    """One map of every image of a batch, as computed: (B,h,w).

    `zero_gradient` (B,) tells whether all gradients behind a map are 0. `scale` makes the map that
    is shown, in [0, 1].
    """

    name: str
    values: Tensor
    zero_gradient: Tensor
    scale: Callable[[Tensor], Tensor] = normalize_maps

    @property
    def shown(self) -> Tensor:
        """The maps as they are shown: (B,h,w) in [0, 1]."""
        return self.scale(self.values)

    @property
    def status_codes(self) -> Tensor:
        """The status of each map, as an index into MAP_STATUSES: (B,)."""
        return compute_status_codes(self.values, self.zero_gradient)

    @property
    def status_names(self) -> list[MapStatus]:
        """The status of each map."""
        return [MAP_STATUSES[code] for code in self.status_codes.tolist()]


def create_map_batch(name: str, values: Tensor, zero_gradient: Tensor | None = None) -> MapBatch:
    """Create a map of every image; without flags, no gradient counts as zero."""
    flags = values.new_zeros(len(values), dtype=torch.bool)
    return MapBatch(name, values, flags if zero_gradient is None else zero_gradient)


@dataclass(frozen=True, slots=True)
class TargetScores:
    """One class of each image (B,): its probability, and how many classes rank above it.

    `logit_weights` (B,K) make the explained score from the logits: 1 for the class, less than 0 for
    classes that it is compared with. `spec` is the target that chose the class; `is_valid` (B,) is
    False for images of which that target is not true.
    """

    class_indices: Tensor
    scores: Tensor
    ranks: Tensor
    logit_weights: Tensor
    is_valid: Tensor
    spec: str = ""


@dataclass(frozen=True, slots=True)
class BatchExplanation:
    """The maps of one request for one target of every image.

    `layers` are the maps of single layers; `parts` are other maps from which `fused` is made.
    """

    request: Request
    target_scores: TargetScores
    fused: MapBatch
    layers: tuple[MapBatch, ...]
    parts: tuple[MapBatch, ...] = ()


@dataclass(frozen=True, slots=True)
class CropLayout:
    """How the maps of an image's inputs become one map: unchanged, or as joined crops."""

    input_size: tuple[int, int]
    crops: Crops | None

    @property
    def inputs_per_sample(self) -> int:
        """The number of inputs for each image."""
        return len(self.crops.corners) if self.crops else 1

    @property
    def fused_size(self) -> tuple[int, int]:
        """The size (H, W) at which layers are fused."""
        return self.crops.canvas_size if self.crops else self.input_size

    def merge_crops(self, maps: MapBatch, method: Method) -> MapBatch:
        """The maps (B,H,W) of images from those of their inputs (B V,h,w)."""
        if not self.crops:
            return maps
        values = merge_crop_maps(maps.values, self.crops, self.input_size, mean=method.signed)
        flags = maps.zero_gradient.reshape(-1, self.inputs_per_sample).all(dim=1)
        return replace(maps, values=values, zero_gradient=flags)


def flip_maps(maps: MapBatch) -> MapBatch:
    """The maps of mirrored inputs, mirrored back."""
    return replace(maps, values=maps.values.flip(2))


def average_maps(views: Sequence[MapBatch]) -> MapBatch:
    """Average one map over several views; its gradient is 0 if that holds in all views.

    Maps of larger or smaller views are first brought to the size of the largest.
    """
    first, *others = views
    if not others:
        return first
    rows, cols = (max(view.values.shape[dim] for view in views) for dim in (1, 2))
    values = torch.stack([_enlarge(view.values, (rows, cols)) for view in views]).mean(dim=0)
    flags = torch.stack([view.zero_gradient for view in views]).all(dim=0)
    return replace(first, values=values, zero_gradient=flags)


def _enlarge(values: Tensor, size: tuple[int, int]) -> Tensor:
    return values if values.shape[1:] == size else resize_maps(values, size)


@torch.no_grad()
def create_batch_explanation(
    request: Request, maps: Sequence[MapBatch], target_scores: TargetScores, layout: CropLayout
) -> BatchExplanation:
    """Join the crops of each map, and fuse the layers if the method has a map for each."""
    scale = partial(_clip_and_normalize, quantile=request.clip_quantile)
    merged = [replace(layout.merge_crops(m, request.method), scale=scale) for m in maps]
    names = {layer.name for layer in request.source_layers}
    layers = tuple(m for m in merged if m.name in names)
    others = tuple(m for m in merged if m.name not in names)
    if not request.method.per_layer:
        return BatchExplanation(request, target_scores, others[0], layers, others[1:])
    scaled = _scale_for_fusion(request, layers, layout.input_size)
    fused = scaled[0] if len(scaled) == 1 else _fuse(request.fusion, scaled, layout.fused_size)
    return BatchExplanation(request, target_scores, fused, scaled, others)


def _clip_and_normalize(maps: Tensor, quantile: float) -> Tensor:
    return normalize_maps(clip_maps(maps, quantile))


def _scale_for_fusion(
    request: Request, layers: Sequence[MapBatch], input_size: tuple[int, int]
) -> tuple[MapBatch, ...]:
    """Each layer's map with the scale that the fusion gives it at the layer's stride."""
    grids = {layer.name: layer.grid for layer in request.layers}

    def create_scale(layer_name: str) -> Callable[[Tensor], Tensor]:
        stride = input_size[0] / grids[layer_name][0]
        quantile = request.clip_quantile
        return lambda maps: request.fusion.scale(clip_maps(maps, quantile), stride)

    return tuple(replace(maps, scale=create_scale(maps.name)) for maps in layers)


def _fuse(fusion: Fusion, layers: Sequence[MapBatch], size: tuple[int, int]) -> MapBatch:
    """One map of several layers; its gradient is 0 if that is the status of every layer."""
    zero = MAP_STATUSES.index("zero_gradient")
    flags = torch.stack([layer.status_codes == zero for layer in layers]).all(dim=0)
    return MapBatch("fused", fuse_maps([layer.shown for layer in layers], fusion, size), flags)
