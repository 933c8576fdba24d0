"""Copy the maps of a batch from the device, as one Explanation per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from camcli.core.types import ClassExplanation, ImageMap
from camcli.engine.postprocess import BatchExplanation, MapBatch


def to_host(batch: BatchExplanation) -> BatchExplanation:
    """Return the same record with its tensors in main memory.

    All tensors travel in one copy, because each copy waits for the device. Where the only layer's
    maps are the fused maps, they stay the same object.
    """
    has_own_layers = not any(maps is batch.fused for maps in batch.layers)
    layers = batch.layers if has_own_layers else ()
    scores = batch.target_scores
    tensors = [scores.class_indices, scores.scores, scores.ranks, scores.logit_weights]
    for maps in (batch.fused, *layers, *batch.parts):
        tensors += [maps.values, maps.zero_gradient]
    copies = iter(copy_to_host(tensors))
    host_scores = replace(
        scores,
        class_indices=next(copies),
        scores=next(copies),
        ranks=next(copies),
        logit_weights=next(copies),
    )
    fused = _replace_tensors(batch.fused, copies)
    host_layers = tuple(_replace_tensors(maps, copies) for maps in layers)
    return replace(
        batch,
        target_scores=host_scores,
        fused=fused,
        layers=host_layers if has_own_layers else (fused,),
        parts=tuple(_replace_tensors(maps, copies) for maps in batch.parts),
    )


def _replace_tensors(maps: MapBatch, copies: Iterator[Tensor]) -> MapBatch:
    return replace(maps, values=next(copies), zero_gradient=next(copies))


def copy_to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copy tensors of any shapes to main memory at once; floating-point values become float32."""
    flat = torch.cat([t.detach().flatten().float() for t in tensors]).cpu()
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [
        part.reshape(t.shape).to(torch.float32 if t.is_floating_point() else t.dtype)
        for part, t in zip(parts, tensors, strict=True)
    ]


def split_by_image(batch: BatchExplanation, class_names: Sequence[str]) -> list[ClassExplanation]:
    """Split a batch in main memory into one explanation per image."""
    scores = batch.target_scores
    fused = _split_maps(batch.fused)
    layers = [fused if maps is batch.fused else _split_maps(maps) for maps in batch.layers]
    parts = [_split_maps(maps) for maps in batch.parts]
    rivals = _find_rival_classes(scores.logit_weights)
    return [
        ClassExplanation(
            class_index=index,
            class_name=class_names[index],
            score=float(scores.scores[b]),
            rank=int(scores.ranks[b]),
            fused_map=fused[b],
            layer_maps=tuple(maps[b] for maps in layers),
            part_maps=tuple(maps[b] for maps in parts),
            rival_classes=tuple((k, class_names[k]) for k in rivals[b]),
        )
        for b, index in enumerate(scores.class_indices.tolist())
    ]


def _split_maps(maps: MapBatch) -> list[ImageMap]:
    return [
        ImageMap(name=maps.name, values=values, normalized=normalized, status=status)
        for values, normalized, status in zip(
            maps.values.numpy(), maps.shown.numpy(), maps.status_names, strict=True
        )
    ]


def _find_rival_classes(logit_weights: Tensor) -> list[list[int]]:
    """List for each image the classes that lower its score: those with a negative weight."""
    return [(weights < 0).nonzero().flatten().tolist() for weights in logit_weights]
