"""The steps of gradient descent on mixtures of cached features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from camcli.core.errors import TrainingError
from camcli.core.types import Failure, ImageSource
from camcli.models.model import Model
from camcli.models.zoo.builtin_networks import CnnFeatures, load_builtin_cnn
from camcli.training.task import AdvanceCallback
from recipes.vit_lite0.augmentation import DistillationData, create_feature_batch
from recipes.vit_lite0.feature_cache import compute_view_features
from recipes.vit_lite0.losses import LOSS_WEIGHTS, TeacherHead, compute_losses
from recipes.vit_lite0.student import Student
from recipes.vit_lite0.teacher_maps import compute_all_teacher_maps, load_teachers

REPORT_INTERVAL_STEPS = 50
WARMUP_SHARE = 0.03  # share of the steps in which the learning rate rises
MIN_RATE_SHARE = 0.01  # of the learning rate, at the end
AVERAGE_DECAY = 0.999  # of the average of the weights, at each step


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """The numbers of a distillation; the defaults are those of the weights that ship."""

    steps: int = 2580
    batch_size: int = 64
    lr: float = 1.5e-3
    decay: float = 0.05
    seed: int = 0
    workers: int = 2


@dataclass(frozen=True, slots=True)
class LossReport:
    """The parts of the loss after a step, averaged over the latest steps."""

    step: int
    losses: dict[str, float]


def compute_distillation_data(
    sources: Sequence[ImageSource],
    vit: Model | None,
    config: DistillationConfig,
    advance: AdvanceCallback,
) -> tuple[DistillationData, list[Failure]]:
    """What is computed once: the features of all views and the map of each photograph.

    Also returns the photographs that cannot be read.
    """
    teachers = load_teachers(vit)
    cnn = teachers.cnn.model
    views, failed = compute_view_features(
        CnnFeatures(cnn.network).to(memory_format=torch.channels_last),
        cnn.transform,
        sources,
        seed=config.seed,
        workers=config.workers,
        advance=advance,
    )
    unreadable = {item.path for item in failed}  # paths: two inputs may share a name
    readable = [item for item in sources if str(item.path) not in unreadable]
    maps, classes = compute_all_teacher_maps(
        teachers, readable, workers=config.workers, advance=advance
    )
    return DistillationData(views, maps, classes), failed


def train_student(
    data: DistillationData, config: DistillationConfig
) -> Iterator[tuple[LossReport, Student]]:
    """Steps of AdamW, with a report now and then; the student has the average of its weights.

    Raises TrainingError when the loss becomes NaN or infinite.
    """
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    teacher_head = TeacherHead(load_builtin_cnn().eval().requires_grad_(False))
    student = Student(data.views)
    average = deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        _create_parameter_groups(student, config.decay), lr=config.lr, betas=(0.9, 0.98)
    )
    running: dict[str, float] = {}
    for step, indices in zip(range(config.steps), _iter_batch_indices(data, config), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _compute_rate_factor(step / config.steps)
        batch = create_feature_batch(data, indices, generator)
        losses = compute_losses(student, teacher_head, batch)
        _update_weights(student, optimizer, _sum_losses(losses, step))
        _update_average(average, student, min(AVERAGE_DECAY, (step + 1) / (step + 10)))
        _update_running_losses(running, losses)
        if (step + 1) % REPORT_INTERVAL_STEPS == 0 or step + 1 == config.steps:
            yield LossReport(step + 1, dict(running)), average


def _create_parameter_groups(student: Student, decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, the CLS token and position embeddings do not."""
    named = dict(student.named_parameters())
    free = {n for n, p in named.items() if p.ndim < 2 or n.endswith(("cls_token", "pos_embed"))}
    return [
        {"params": [p for n, p in named.items() if n not in free], "weight_decay": decay},
        {"params": [named[n] for n in free], "weight_decay": 0.0},
    ]


def _iter_batch_indices(data: DistillationData, config: DistillationConfig) -> Iterator[Tensor]:
    """Batches of views without end: each view once in a shuffle, shuffle after shuffle."""
    view_count = len(data.views.middle)
    size = min(config.batch_size, view_count)
    while True:
        order = torch.randperm(view_count)
        yield from order[: view_count // size * size].reshape(-1, size)


def _compute_rate_factor(progress: float) -> float:
    """A short rise, then half a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return min(1.0, progress / WARMUP_SHARE) * (MIN_RATE_SHARE + (1 - MIN_RATE_SHARE) * cosine)


def _sum_losses(losses: Mapping[str, Tensor], step: int) -> Tensor:
    total = torch.stack([LOSS_WEIGHTS[name] * part for name, part in losses.items()]).sum()
    if not torch.isfinite(total):
        raise TrainingError(f"the loss is {float(total)} at step {step}; try a lower --lr")
    return total


def _update_weights(student: Student, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def _update_average(average: Student, student: Student, kept: float) -> None:
    averages = average.state_dict()
    for name, value in student.state_dict().items():
        averages[name].lerp_(value, 1 - kept)


def _update_running_losses(running: dict[str, float], losses: Mapping[str, Tensor]) -> None:
    for name, part in losses.items():
        value = float(part.detach())
        running[name] = 0.95 * running.get(name, value) + 0.05 * value
