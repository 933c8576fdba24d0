"""What the student should do: answer, place and attend as its teachers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from camcli.training.distillation.augmentation import FeatureBatch
from camcli.training.distillation.student import Student, StudentOutput

# Of the sum; `dense` is what ties the semantic map's scale to the teacher's.
LOSS_WEIGHTS: Mapping[str, float] = {
    "conv": 1.0,
    "cls": 0.5,
    "dense": 1.0,
    "semantic": 0.3,
    "coupled": 1.0,
    "attention": 0.3,
}
OBJECT_MAP_FLOOR, BACKGROUND_WEIGHT = (
    0.1,
    1e-3,
)  # of an object's map: what is below is background, which gets a little


class TeacherHead:
    """The CNN's last layers: what it says of any mixture of its features, position by position."""

    def __init__(self, cnn: Any) -> None:
        self._last_layers = cnn.bn2, cnn.conv_head
        self.weight: Tensor = cnn.classifier.weight
        self.bias: Tensor = cnn.classifier.bias

    def compute_features(self, deep: Tensor) -> Tensor:
        """(B,H,W,320) -> (B,H,W,1280)."""
        norm, convolution = self._last_layers
        found: Tensor = norm(convolution(deep.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        return found

    def compute_logits(self, maps: Tensor) -> Tensor:
        """(B,H,W,1280) -> (B,K)."""
        return maps.mean(dim=(1, 2)) @ self.weight.T + self.bias

    def compute_semantic_maps(self, maps: Tensor, classes: Tensor) -> Tensor:
        """CAM with bias, of classes (B,S), twice as fine: (B,S,2H,2W)."""
        found = torch.einsum("bhwc,bsc->bshw", maps, self.weight[classes])
        found = found + self.bias[classes][..., None, None]
        return nn.functional.interpolate(found, scale_factor=2, mode="bilinear")


def compute_losses(
    student: Student, teacher_head: TeacherHead, batch: FeatureBatch
) -> dict[str, Tensor]:
    """Each part of the loss; they are summed as WEIGHTS has it.

    conv, cls: cross entropy to the teacher's softmax. dense: squared difference of the semantic
    maps of three classes (the sample's own, another of the teacher's best five, any) to the
    teacher's. semantic, coupled: 1 - Pearson correlation with the evidence, which is all that
    matters to a map that is min-maxed. attention: KL divergence from the objects in sight.
    """
    with torch.no_grad():
        maps = teacher_head.compute_features(batch.deep)
        logits = teacher_head.compute_logits(maps)
        wanted = logits.softmax(dim=1)
        number = len(logits)
        of_five = logits.topk(5).indices.gather(1, torch.randint(1, 5, (number, 1)))
        some = torch.randint(0, logits.shape[1], (number, 1))
        classes = torch.cat([batch.class_indices[:, None], of_five, some], dim=1)
        placed = teacher_head.compute_semantic_maps(maps, classes)
        objects = (batch.object_maps.clamp(min=0) - OBJECT_MAP_FLOOR).clamp(
            min=0
        ) + BACKGROUND_WEIGHT
        objects = objects / objects.sum(dim=(1, 2), keepdim=True)
    said: StudentOutput = student(batch.middle, batch.deep, batch.corner)
    semantic = student.compute_semantic_maps(said.tokens, classes)
    scale = placed.std(dim=(2, 3)).mean() + 1e-3
    attention = said.cls_attention / said.cls_attention.sum(dim=(1, 2), keepdim=True)
    own = semantic[:, 0]
    return {
        "conv": nn.functional.cross_entropy(said.conv_logits, wanted),
        "cls": nn.functional.cross_entropy(said.cls_logits, wanted),
        "dense": ((semantic - placed) / scale).square().mean(),
        "semantic": _compute_correlation_loss(own, batch),
        "coupled": _compute_correlation_loss(own * said.cls_attention, batch),
        "attention": (objects * (objects.log() - (attention + 1e-8).log())).sum(dim=(1, 2)).mean(),
    }


def _compute_correlation_loss(maps: Tensor, mixed: FeatureBatch) -> Tensor:
    """1 - correlation with the evidence, over the samples whose class is to be seen."""
    unlike = (1 - compute_pearson_correlation(maps, mixed.class_maps)) * mixed.class_visibility
    return unlike.sum() / mixed.class_visibility.sum().clamp(min=1)


def compute_pearson_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's, of each pair of maps: (B,H,W) x2 -> (B,)."""
    flat = (maps.flatten(1) for maps in (one, other))
    first, second = (maps - maps.mean(dim=1, keepdim=True) for maps in flat)
    lengths: Tensor = first.norm(dim=1) * second.norm(dim=1)
    return (first * second).sum(dim=1) / (lengths + 1e-6)
