"""What a network should say of a batch: its photographs' classes, or what a teacher says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from camcli.core.types import Transform
from camcli.models.model import Model
from camcli.training.data.loader import Batch

Answers = Callable[[Batch], Tensor]  # probabilities (B, K)


def of_labels(classes: int) -> Answers:
    """All on the class of each photograph."""
    return lambda batch: torch.nn.functional.one_hot(
        torch.tensor([photo.label for photo in batch.photos]), classes
    ).float()


def of_teacher(teacher: Model, transform: Transform) -> Answers:
    """The teacher's softmax on the very pixels that the student sees."""
    return partial(_ask, teacher, transform)


@torch.no_grad()
def _ask(teacher: Model, transform: Transform, batch: Batch) -> Tensor:
    pixels = seen_by(batch.inputs, transform, teacher.transform).to(teacher.device)
    probabilities: Tensor = teacher.network(pixels).float().softmax(dim=1)
    return probabilities.cpu()


def seen_by(inputs: Tensor, of: Transform, by: Transform) -> Tensor:
    """Inputs normalised and sized for one network as another wants them: (B,3,H,W)."""
    mean, std, other_mean, other_std = (
        torch.tensor(values)[:, None, None] for values in (of.mean, of.std, by.mean, by.std)
    )
    pixels = inputs * std + mean
    if by.size != of.size:
        pixels = torch.nn.functional.interpolate(pixels, by.size, mode="bilinear", antialias=True)
    return (pixels - other_mean) / other_std
