"""What a network should say of a batch: its photographs' classes, or what a teacher says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from camcli.core.types import Transform
from camcli.models.model import Model
from camcli.training.data.loader import TrainingBatch

SoftLabeler = Callable[[TrainingBatch], Tensor]  # probabilities (B, K)


def create_one_hot_labeler(class_count: int) -> SoftLabeler:
    """All on the class of each photograph."""
    return lambda batch: torch.nn.functional.one_hot(
        torch.tensor([photo.label for photo in batch.samples]), class_count
    ).float()


def create_teacher_labeler(teacher: Model, transform: Transform) -> SoftLabeler:
    """The teacher's softmax on the very pixels that the student sees."""
    return partial(_predict_probabilities, teacher, transform)


@torch.no_grad()
def _predict_probabilities(teacher: Model, transform: Transform, batch: TrainingBatch) -> Tensor:
    pixels = convert_inputs(batch.inputs, transform, teacher.transform).to(teacher.device)
    probabilities: Tensor = teacher.network(pixels).float().softmax(dim=1)
    return probabilities.cpu()


def convert_inputs(
    inputs: Tensor, source_transform: Transform, target_transform: Transform
) -> Tensor:
    """Inputs normalised and sized for one network as another wants them: (B,3,H,W)."""
    mean, std, other_mean, other_std = (
        torch.tensor(values)[:, None, None]
        for values in (
            source_transform.mean,
            source_transform.std,
            target_transform.mean,
            target_transform.std,
        )
    )
    pixels = inputs * std + mean
    if target_transform.size != source_transform.size:
        pixels = torch.nn.functional.interpolate(
            pixels, target_transform.size, mode="bilinear", antialias=True
        )
    return (pixels - other_mean) / other_std
