"""The whole of it: views, evidence, then steps of gradient descent on mixtures of features."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from camcli.core.concurrency import prefetch_map
from camcli.core.errors import TrainingError
from camcli.core.types import Failure, ImageSource
from camcli.io.images import load_image
from camcli.models.model import Model, load_model
from camcli.models.zoo.builtin import BUILTIN_CNN, CnnFeatures, load_builtin_cnn
from camcli.training.distillation import losses
from camcli.training.distillation.augmentation import DistillationData, create_feature_batch
from camcli.training.distillation.feature_cache import compute_view_features
from camcli.training.distillation.student import Student
from camcli.training.distillation.teacher_maps import (
    LARGE_INPUT_PIXELS,
    compute_teacher_maps,
    create_cam_teacher,
    create_relevance_teacher,
)
from camcli.training.task import AdvanceCallback

REPORT_INTERVAL_STEPS = 50  # steps between two reports
WARMUP_SHARE = 0.03  # share of the steps in which the rate rises
MIN_RATE_SHARE = 0.01  # of the rate, at the end
AVERAGE_DECAY = 0.999  # of the average of weights, at each step


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """The numbers of a distillation."""

    steps: int = 2580
    batch_size: int = 64
    lr: float = 1.5e-3
    decay: float = 0.05
    seed: int = 0
    workers: int = 2


@dataclass(frozen=True, slots=True)
class LossReport:
    """The parts of the loss, averaged over the latest steps."""

    step: int
    losses: dict[str, float]


def compute_distillation_data(
    sources: Sequence[ImageSource],
    vit: Model | None,
    config: DistillationConfig,
    advance: AdvanceCallback,
) -> tuple[DistillationData, list[Failure]]:
    """What is computed once: features of all views, and where the object of each photograph is."""
    cnn = load_model(BUILTIN_CNN, device="cpu")
    large = load_model(
        BUILTIN_CNN,
        size=(LARGE_INPUT_PIXELS, LARGE_INPUT_PIXELS),
        device="cpu",
    )
    source = CnnFeatures(cnn.network).to(memory_format=torch.channels_last)
    seen, failed = compute_view_features(
        source, cnn.transform, sources, config.seed, config.workers, advance
    )
    unread = {item.path for item in failed}  # names are not the same in all folders' inputs
    paths = [item for item in sources if str(item.path) not in unread]
    rolled = create_relevance_teacher(vit) if vit else None
    teachers = (create_cam_teacher(cnn), create_cam_teacher(large), rolled)
    maps, classes = [], []
    with ThreadPoolExecutor(config.workers) as pool:
        pictures = prefetch_map(pool, lambda item: load_image(item.path), paths, 40)
        while group := list(islice(pictures, 20)):
            placed, of = compute_teacher_maps(*teachers, group)
            maps.append(placed)
            classes.append(of)
            advance(len(group))
    return DistillationData(seen, torch.cat(maps), torch.cat(classes)), failed


def train_student(
    data: DistillationData, config: DistillationConfig
) -> Iterator[tuple[LossReport, Student]]:
    """Steps of AdamW, with a report now and then; the student is the average of its last weights.

    Raises TrainingError when the loss is no number.
    """
    torch.manual_seed(config.seed)
    draw = np.random.default_rng(config.seed)
    answers = losses.TeacherHead(load_builtin_cnn().eval().requires_grad_(False))
    student = Student(data.views)
    average = deepcopy(student).requires_grad_(False)
    solver = torch.optim.AdamW(
        _create_parameter_groups(student, config.decay), lr=config.lr, betas=(0.9, 0.98)
    )
    latest: dict[str, float] = {}
    for step, which in zip(range(config.steps), _iter_batch_indices(data, config), strict=False):
        for group in solver.param_groups:
            group["lr"] = config.lr * _compute_rate_factor(step / config.steps)
        parts = losses.compute_losses(student, answers, create_feature_batch(data, which, draw))
        total = torch.stack(
            [losses.LOSS_WEIGHTS[name] * part for name, part in parts.items()]
        ).sum()
        if not torch.isfinite(total):
            raise TrainingError(f"the loss is {float(total)} at step {step}; try a lower --lr")
        solver.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        solver.step()
        _update_average(average, student, min(AVERAGE_DECAY, (step + 1) / (step + 10)))
        for name, part in parts.items():
            value = float(part.detach())
            latest[name] = 0.95 * latest.get(name, value) + 0.05 * value
        if (step + 1) % REPORT_INTERVAL_STEPS == 0 or step + 1 == config.steps:
            yield LossReport(step + 1, dict(latest)), average


def _create_parameter_groups(student: Student, decay: float) -> list[dict[str, object]]:
    """Matrices decay; biases, norms, and what is added to tokens do not."""
    named = dict(student.named_parameters())
    free = {n for n, p in named.items() if p.ndim < 2 or n.endswith(("cls_token", "pos_embed"))}
    return [
        {"params": [p for n, p in named.items() if n not in free], "weight_decay": decay},
        {"params": [named[n] for n in free], "weight_decay": 0.0},
    ]


def _iter_batch_indices(known: DistillationData, how: DistillationConfig) -> Iterator[Tensor]:
    """Batches of views, each once in a shuffle, shuffle after shuffle."""
    size = min(how.batch_size, len(known.views.middle))
    while True:
        order = torch.randperm(len(known.views.middle))
        yield from order[: len(order) // size * size].reshape(-1, size)


def _compute_rate_factor(done: float) -> float:
    """A short rise, then half a cosine."""
    fall = MIN_RATE_SHARE + (1 - MIN_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * done))
    return min(1.0, done / WARMUP_SHARE) * fall


@torch.no_grad()
def _update_average(average: Student, student: Student, kept: float) -> None:
    own = average.state_dict()
    for name, value in student.state_dict().items():
        own[name].lerp_(value, 1 - kept)
