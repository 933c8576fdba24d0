"""Copy the maps of a batch from the device, as one Explanation per image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from camcli.core.types import ClassExplanation, ImageMap, OutputKind, ScoreKind
from camcli.engine.postprocess import BatchExplanation, MapBatch, TargetScores

SplitFunction = Callable[[BatchExplanation], Sequence[ClassExplanation]]
# What a score is where it is not a probability.
SCORE_KINDS: Mapping[OutputKind, ScoreKind] = {
    "regression": "value",
    "similarity": "similarity",
    "embedding": "none",
}


def to_host(batch: BatchExplanation) -> BatchExplanation:
    """Return the same record with its tensors in main memory.

    All tensors travel in one copy, because each copy waits for the device. Where the only layer's
    maps are the fused maps, they stay the same object.
    """
    has_own_layers = not any(maps is batch.fused for maps in batch.layers)
    layers = batch.layers if has_own_layers else ()
    scores = batch.target_scores
    tensors = [
        scores.class_indices,
        scores.scores,
        scores.ranks,
        scores.logit_weights,
        scores.is_valid,
    ]
    for maps in (batch.fused, *layers, *batch.parts):
        tensors += [maps.values, maps.zero_gradient]
    copies = iter(copy_to_host(tensors))
    host_scores = replace(
        scores,
        class_indices=next(copies),
        scores=next(copies),
        ranks=next(copies),
        logit_weights=next(copies),
        is_valid=next(copies),
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


def split_by_image(
    batch: BatchExplanation, class_names: Sequence[str], output_kind: OutputKind = "softmax"
) -> list[ClassExplanation]:
    """Split a batch in main memory into one explanation per image."""
    scores = batch.target_scores
    fused = _split_maps(batch.fused)
    layers = [fused if maps is batch.fused else _split_maps(maps) for maps in batch.layers]
    parts = [_split_maps(maps) for maps in batch.parts]
    rivals = _find_rival_classes(scores)
    own_weights = scores.logit_weights.gather(1, scores.class_indices[:, None])[:, 0]
    has_classes = output_kind != "embedding"
    return [
        ClassExplanation(
            class_index=index if has_classes else None,
            class_name=class_names[index] if has_classes else "",
            score=float(scores.scores[b]) if has_classes else math.nan,
            rank=int(scores.ranks[b]),
            fused_map=fused[b],
            layer_maps=tuple(maps[b] for maps in layers),
            part_maps=tuple(maps[b] for maps in parts),
            rival_classes=tuple((k, class_names[k]) for k in rivals[b]) if has_classes else (),
            targets=(scores.spec,) if has_classes else (),
            is_predicted=_is_predicted(scores, b, output_kind),
            is_low=bool(own_weights[b] < 0),
            score_kind=SCORE_KINDS.get(output_kind, "probability"),
        )
        for b, index in enumerate(scores.class_indices.tolist())
    ]


def _is_predicted(scores: TargetScores, number: int, output_kind: OutputKind) -> bool:
    """Whether the network predicts the class: ranked first, or with a sigmoid P >= 0.5."""
    if output_kind in SCORE_KINDS:
        return False
    if output_kind == "softmax":
        return int(scores.ranks[number]) == 0
    return float(scores.scores[number]) >= 0.5


def merge_targets(
    columns: Sequence[BatchExplanation], split: SplitFunction
) -> list[list[ClassExplanation]]:
    """The explanations of each image, in the order of the targets.

    A class that several targets choose with the same weights appears once, with the names of all.
    """
    merged: list[dict[bytes, ClassExplanation]] = []
    for column in columns:
        scores = column.target_scores
        for b, found in enumerate(split(column)):
            merged += [{}] if b == len(merged) else []
            if scores.is_valid[b]:
                _add_explanation(merged[b], scores.logit_weights[b], found)
    return [list(of_image.values()) for of_image in merged]


def _add_explanation(
    of_image: dict[bytes, ClassExplanation], weights: Tensor, found: ClassExplanation
) -> None:
    key = weights.numpy().tobytes()
    known = of_image.get(key)
    targets = (*known.targets, *found.targets) if known else found.targets
    of_image[key] = replace(known or found, targets=tuple(dict.fromkeys(targets)))


def _split_maps(maps: MapBatch) -> list[ImageMap]:
    return [
        ImageMap(name=maps.name, values=values, normalized=normalized, status=status)
        for values, normalized, status in zip(
            maps.values.numpy(), maps.shown.numpy(), maps.status_names, strict=True
        )
    ]


def _find_rival_classes(scores: TargetScores) -> list[list[int]]:
    """List for each image the classes that lower its score: those with a negative weight."""
    lowers = (scores.logit_weights < 0).scatter(1, scores.class_indices[:, None], False)
    return [row.nonzero().flatten().tolist() for row in lowers]
