"""What is trained, on what, and what comes of it: data only."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from camcli.core.types import Failure, Transform
from camcli.models.zoo.model_card import HeadKind
from camcli.training.config import Recipe
from camcli.training.data.samples import TrainingData
from camcli.training.soft_labels import SoftLabeler


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A network with its new head, the photographs, and what it should say of each."""

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
    """What validation says: share of right answers, cross entropy, share of right boxes.

    `gt_known` is that of the true classes' boxes at the `threshold` that is best for them.
    """

    top1: float | None = None
    loss: float | None = None
    gt_known: float | None = None
    threshold: float | None = None

    @property
    def sort_key(self) -> tuple[float, float, float]:
        """What decides which of two is the better: boxes where there are any, then answers."""
        known, right = self.gt_known or 0.0, self.top1 or 0.0
        return (known, right, -self.loss if self.loss is not None else -math.inf)


@dataclass(frozen=True, slots=True)
class EpochResult:
    """One epoch, or one fit of a head: mean loss, what validation says, how long it took.

    `losses` has the loss at each iteration of a fit, `decay` its weight decay.
    """

    number: int
    loss: float
    judged: ValidationScores
    seconds: float
    failed: tuple[Failure, ...] = ()
    decay: float | None = None
    losses: tuple[float, ...] = ()


AdvanceCallback = Callable[[int], None]  # so many photographs more
