"""Records of a training: the task, its scores and its epochs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from camcli.core.types import Failure, Transform
from camcli.models.zoo.model_card import HeadKind
from camcli.training.data.training_samples import TrainingData
from camcli.training.soft_labels import SoftLabeler
from camcli.training.training_config import Recipe

AdvanceCallback = Callable[[int], None]  # takes the number of photographs that are done


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A network with its new head, its photographs, and how to label a batch of them."""

    head_kind: HeadKind
    architecture: str
    network: nn.Module
    transform: Transform
    data: TrainingData
    label_batch: SoftLabeler
    device: torch.device
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class LocalizationScore:
    """GT-known, the share of boxes with IoU >= 0.5, at the best threshold, and that threshold."""

    gt_known: float
    threshold: float


@dataclass(frozen=True, slots=True)
class ValidationScores:
    """Top-1 accuracy, cross entropy, and GT-known at the threshold that is best for it."""

    top1: float | None = None
    loss: float | None = None
    gt_known: float | None = None
    threshold: float | None = None

    @property
    def sort_key(self) -> tuple[float, float, float]:
        """Larger is better: GT-known decides if there are boxes, then top-1, then the loss."""
        loss = math.inf if self.loss is None else self.loss
        return self.gt_known or 0.0, self.top1 or 0.0, -loss


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch, or one fit of a head: its mean loss, its validation scores, its seconds.

    `failed` are photographs that cannot be read. A fit of a head has its weight `decay`, and in
    `losses` the loss at each iteration.
    """

    number: int
    loss: float
    scores: ValidationScores
    seconds: float
    failed: tuple[Failure, ...] = ()
    decay: float | None = None
    losses: tuple[float, ...] = ()
