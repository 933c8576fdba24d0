"""A head alone: each photograph goes through the frozen network once, the rest is regression."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import TrainingError
from camcli.core.types import Failure
from camcli.models.introspection.heads import ConvHead, PooledHead
from camcli.training.config import HEAD_WEIGHT_DECAYS
from camcli.training.data.loader import iter_batches
from camcli.training.data.samples import TrainingSample
from camcli.training.logistic_regression import (
    LinearClassifier,
    compute_window_means,
    fit_logistic_regression,
    pool_positions,
)
from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask, ValidationScores
from camcli.training.validation import compute_classification_scores, validate_localization


@dataclass(frozen=True, slots=True)
class HeadFeatures:
    """What a head sees of each photograph (n, F), what it should say (n, K), and what failed."""

    features: Tensor
    target_probabilities: Tensor
    failed: tuple[Failure, ...]


def find_trainable_head(network: nn.Module) -> ConvHead | PooledHead:
    """The head that was put on."""
    return next(m for m in network.modules() if isinstance(m, ConvHead | PooledHead))


def fit_linear_head(task: TrainingTask, advance: AdvanceCallback) -> Iterator[EpochResult]:
    """A fit for each weight decay; the network has the head of the best so far on validation.

    Training sees each photograph and its mirror image. Raises TrainingError where nothing could be
    read.
    """
    began = time.monotonic()
    train = _compute_head_features(task, task.data.train, advance, mirrored=True)
    held = _compute_head_features(task, task.data.validation, advance, mirrored=False)
    for part, seen in (("photographs", train), ("validation photographs", held)):
        if not len(seen.features):
            raise TrainingError(
                f"none of the {part} can be read: {_first_failure_message(seen.failed)}"
            )
    told = {photo.label for photo in task.data.train} - {None}
    unseen = told - set(train.target_probabilities.argmax(dim=1).tolist())
    if unseen:
        raise TrainingError(task.data.unreadable_classes_message(unseen))
    given, best, kept = task.recipe.decay, ValidationScores(), None
    for number, decay in enumerate(HEAD_WEIGHT_DECAYS if given is None else (given,), start=1):
        fitted = fit_logistic_regression(train.features, train.target_probabilities, decay)
        if not torch.isfinite(fitted.weight).all():
            raise TrainingError("the head's weights became NaN; are the network's own finite?")
        _copy_weights_to_head(fitted, find_trainable_head(task.network))
        judged = validate_localization(
            task,
            compute_classification_scores(
                fitted.compute_logits(held.features), held.target_probabilities
            ),
        )
        if kept is None or judged.sort_key > best.sort_key:
            best, kept = judged, fitted
        _copy_weights_to_head(kept, find_trainable_head(task.network))
        failed = (*train.failed, *held.failed) if number == 1 else ()
        took = time.monotonic() - began
        yield EpochResult(number, fitted.losses[-1], judged, took, failed, decay, fitted.losses)
        began = time.monotonic()


def _first_failure_message(failed: Sequence[Failure]) -> str:
    return f"{failed[0].name}: {failed[0].reason}" if failed else "there are none"


def _copy_weights_to_head(fitted: LinearClassifier, head: ConvHead | PooledHead) -> None:
    own = head.conv if isinstance(head, ConvHead) else head
    assert own.bias is not None
    with torch.no_grad():
        own.weight.copy_(fitted.weight.reshape(own.weight.shape))
        own.bias.copy_(fitted.bias)


@torch.no_grad()
def _compute_head_features(
    lesson: TrainingTask,
    photos: Sequence[TrainingSample],
    advance: AdvanceCallback,
    *,
    mirrored: bool,
) -> HeadFeatures:
    features: list[Tensor] = []
    wanted: list[Tensor] = []
    failed: list[Failure] = []
    recipe, network = lesson.recipe, lesson.network.eval()
    with _bypass_head(network) as read:
        for batch in iter_batches(photos, lesson.transform, recipe.batch_size, recipe.workers):
            if isinstance(batch, Failure):
                failed.append(batch)
                advance(1)
                continue
            for way in (batch.inputs, batch.inputs.flip(3))[: 1 + mirrored]:
                with create_autocast(lesson):
                    yielded = network(way.to(lesson.device))
                features.append(read(yielded.float()).cpu())
                wanted.append(lesson.label_batch(replace(batch, inputs=way)))
            advance(len(batch.samples))
    classes = len(lesson.data.labels.names)
    none = torch.zeros(0, 1), torch.zeros(0, classes)
    return HeadFeatures(
        torch.cat(features) if features else none[0],
        torch.cat(wanted) if wanted else none[1],
        tuple(failed),
    )


def create_autocast(task: TrainingTask) -> Any:
    """The precision that the recipe asks for."""
    return torch.autocast(task.device.type, torch.bfloat16, enabled=task.recipe.precision == "bf16")


@contextmanager
def _bypass_head(network: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """The network yields what its head would read; given is how the head sums that up."""
    head = find_trainable_head(network)
    name = next(name for name, module in network.named_modules() if module is head)
    network.set_submodule(name, nn.Identity())
    try:
        if isinstance(head, ConvHead):
            yield partial(compute_window_means, prefix=head.prefix, grid=head.grid)
        else:
            yield pool_positions
    finally:
        network.set_submodule(name, head)
