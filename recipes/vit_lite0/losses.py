"""What the student learns: to classify, to localize and to attend as its teachers do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from recipes.vit_lite0.augmentation import FeatureBatch
from recipes.vit_lite0.student import Student

# `dense` ties the scale of the semantic maps to the teacher's.
LOSS_WEIGHTS: Mapping[str, float] = {
    "conv": 1.0,
    "cls": 0.5,
    "dense": 1.0,
    "semantic": 0.3,
    "coupled": 1.0,
    "attention": 0.3,
}
OBJECT_MAP_FLOOR = 0.1  # values of an object's map below it are background
BACKGROUND_WEIGHT = 1e-3  # what background gets of the attention, so that its logarithm is finite


class TeacherHead:
    """The CNN's last layers: its logits and CAMs of any mixture of its features."""

    def __init__(self, cnn: Any) -> None:
        self._conv, self._norm = cnn.conv_head, cnn.bn2
        self.weight: Tensor = cnn.classifier.weight
        self.bias: Tensor = cnn.classifier.bias

    def compute_features(self, deep: Tensor) -> Tensor:
        """(B,H,W,320) -> (B,H,W,1280)."""
        features: Tensor = self._norm(self._conv(deep.permute(0, 3, 1, 2)))
        return features.permute(0, 2, 3, 1)

    def compute_logits(self, features: Tensor) -> Tensor:
        """(B,H,W,1280) -> (B,K)."""
        return features.mean(dim=(1, 2)) @ self.weight.T + self.bias

    def compute_semantic_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """CAM with bias, for classes (B,S), on a grid twice as fine: (B,S,2H,2W)."""
        maps = torch.einsum("bhwc,bsc->bshw", features, self.weight[classes])
        maps = maps + self.bias[classes][..., None, None]
        return nn.functional.interpolate(maps, scale_factor=2, mode="bilinear")


@dataclass(frozen=True, slots=True)
class _TeacherTargets:
    """Probabilities (B,K), three classes (B,3) and their maps (B,3,H,W), attention (B,H,W)."""

    probabilities: Tensor
    classes: Tensor
    semantic_maps: Tensor
    attention: Tensor


def compute_losses(
    student: Student, teacher_head: TeacherHead, batch: FeatureBatch
) -> dict[str, Tensor]:
    """The parts of the loss, which LOSS_WEIGHTS weighs.

    conv, cls: cross entropy to the teacher's softmax. dense: squared difference of the semantic
    maps of three classes (the sample's own, another of the teacher's best five, any) to the
    teacher's. semantic, coupled: 1 - Pearson correlation with the teachers' map; only the
    correlation matters, as maps are min-maxed. attention: KL divergence from the visible objects.
    """
    targets = _compute_targets(teacher_head, batch)
    output = student(batch.middle, batch.deep, batch.corner)
    semantic = student.compute_semantic_maps(output.tokens, targets.classes)
    scale = targets.semantic_maps.std(dim=(2, 3)).mean() + 1e-3
    attention = _normalize_to_sum_1(output.cls_attention)
    own = semantic[:, 0]
    return {
        "conv": nn.functional.cross_entropy(output.conv_logits, targets.probabilities),
        "cls": nn.functional.cross_entropy(output.cls_logits, targets.probabilities),
        "dense": ((semantic - targets.semantic_maps) / scale).square().mean(),
        "semantic": _compute_correlation_loss(own, batch),
        "coupled": _compute_correlation_loss(own * output.cls_attention, batch),
        "attention": _compute_divergence(targets.attention, attention),
    }


@torch.no_grad()
def _compute_targets(teacher_head: TeacherHead, batch: FeatureBatch) -> _TeacherTargets:
    features = teacher_head.compute_features(batch.deep)
    logits = teacher_head.compute_logits(features)
    number, class_count = logits.shape
    one_of_five = logits.topk(5).indices.gather(1, torch.randint(1, 5, (number, 1)))
    any_class = torch.randint(0, class_count, (number, 1))
    classes = torch.cat([batch.class_indices[:, None], one_of_five, any_class], dim=1)
    objects = (batch.object_maps.clamp(min=0) - OBJECT_MAP_FLOOR).clamp(min=0) + BACKGROUND_WEIGHT
    return _TeacherTargets(
        probabilities=logits.softmax(dim=1),
        classes=classes,
        semantic_maps=teacher_head.compute_semantic_maps(features, classes),
        attention=_normalize_to_sum_1(objects),
    )


def _normalize_to_sum_1(maps: Tensor) -> Tensor:
    return maps / maps.sum(dim=(1, 2), keepdim=True)


def _compute_divergence(wanted: Tensor, attention: Tensor) -> Tensor:
    """KL divergence of attention from the wanted one, both (B,H,W) and of sum 1."""
    return (wanted * (wanted.log() - (attention + 1e-8).log())).sum(dim=(1, 2)).mean()


def _compute_correlation_loss(maps: Tensor, batch: FeatureBatch) -> Tensor:
    """1 - correlation with the teachers' maps, over the samples whose class is visible."""
    losses = (1 - compute_pearson_correlation(maps, batch.class_maps)) * batch.class_visibility
    return losses.sum() / batch.class_visibility.sum().clamp(min=1)


def compute_pearson_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of each pair of maps: (B,H,W) twice -> (B,)."""
    flat = (maps.flatten(1) for maps in (one, other))
    first, second = (maps - maps.mean(dim=1, keepdim=True) for maps in flat)
    lengths: Tensor = first.norm(dim=1) * second.norm(dim=1)
    return (first * second).sum(dim=1) / (lengths + 1e-6)
