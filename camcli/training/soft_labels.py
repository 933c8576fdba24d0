"""The probabilities that a network learns, from the photographs' classes or from a teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from camcli.core.errors import UsageError
from camcli.core.types import Transform
from camcli.models.model import Model
from camcli.training.data.loader import TrainingBatch

SoftLabeler = Callable[[TrainingBatch], Tensor]  # probabilities (B, K)


def create_one_hot_labeler(class_count: int) -> SoftLabeler:
    """Probability 1 for the class of each photograph."""
    return lambda batch: torch.nn.functional.one_hot(
        torch.tensor([sample.label for sample in batch.samples]), class_count
    ).float()


def create_teacher_labeler(teacher: Model, transform: Transform) -> SoftLabeler:
    """The teacher's softmax on the same pixels that the student sees.

    Raises UsageError if they take images of different numbers of channels.
    """
    counts = teacher.transform.channel_count, transform.channel_count
    if counts[0] != counts[1]:
        raise UsageError(
            f"the teacher takes {counts[0]} channels and the network {counts[1]}; they see the "
            f"same images"
        )
    return partial(_predict_probabilities, teacher, transform)


@torch.no_grad()
def _predict_probabilities(teacher: Model, transform: Transform, batch: TrainingBatch) -> Tensor:
    pixels = convert_inputs(batch.inputs, transform, teacher.transform).to(teacher.device)
    probabilities: Tensor = teacher.network(pixels).float().softmax(dim=1)
    return probabilities.cpu()


def convert_inputs(
    inputs: Tensor, source_transform: Transform, target_transform: Transform
) -> Tensor:
    """Inputs of one network, normalized and resized for another: (B,C,H,W)."""
    pixels = inputs * _to_channels(source_transform.std) + _to_channels(source_transform.mean)
    if target_transform.size != source_transform.size:
        pixels = torch.nn.functional.interpolate(
            pixels, target_transform.size, mode="bilinear", antialias=True
        )
    mean, std = _to_channels(target_transform.mean), _to_channels(target_transform.std)
    return (pixels - mean) / std


def _to_channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values)[:, None, None]
