"""Fit a head alone: each photograph passes the frozen network once, then logistic regression."""

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
from camcli.training.data.loader import TrainingBatch, iter_batches
from camcli.training.data.training_samples import TrainingData, TrainingSample
from camcli.training.logistic_regression import (
    LogisticClassifier,
    compute_window_means,
    fit_logistic_regression,
    pool_positions,
)
from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask, ValidationScores
from camcli.training.training_config import HEAD_WEIGHT_DECAYS
from camcli.training.validation import compute_classification_scores, validate_localization


@dataclass(frozen=True, slots=True)
class HeadFeatures:
    """The inputs of a head (n, F), its target probabilities (n, K), and failures."""

    features: Tensor
    target_probabilities: Tensor
    failed: tuple[Failure, ...]


def find_trainable_head(network: nn.Module) -> ConvHead | PooledHead:
    """The head that camcli has attached."""
    return next(m for m in network.modules() if isinstance(m, ConvHead | PooledHead))


def fit_linear_head(task: TrainingTask, advance: AdvanceCallback) -> Iterator[EpochResult]:
    """Fit the head for each weight decay; the network keeps the one that validates best.

    Training sees each photograph and its mirror image. Raises TrainingError if no photograph of a
    part or of a class can be read, or if the weights become NaN.
    """
    start = time.monotonic()
    train = _compute_head_features(task, task.data.train, advance, mirrored=True)
    validation = _compute_head_features(task, task.data.validation, advance, mirrored=False)
    _check_readable(train, validation, task.data)
    failed = (*train.failed, *validation.failed)
    best: tuple[ValidationScores, LogisticClassifier] | None = None
    decays = HEAD_WEIGHT_DECAYS if task.recipe.decay is None else (task.recipe.decay,)
    for number, decay in enumerate(decays, start=1):
        classifier = fit_logistic_regression(train.features, train.target_probabilities, decay)
        scores = _validate_classifier(task, classifier, validation)
        if best is None or scores.sort_key > best[0].sort_key:
            best = scores, classifier
        _copy_weights_to_head(best[1], find_trainable_head(task.network))
        yield EpochResult(
            number=number,
            loss=classifier.losses[-1],
            scores=scores,
            seconds=time.monotonic() - start,
            failed=failed if number == 1 else (),
            decay=decay,
            losses=classifier.losses,
        )
        start = time.monotonic()


def _check_readable(train: HeadFeatures, validation: HeadFeatures, data: TrainingData) -> None:
    for part, found in (("photographs", train), ("validation photographs", validation)):
        if not len(found.features):
            reason = _first_failure_message(found.failed)
            raise TrainingError(f"camcli cannot read any {part}: {reason}")
    seen = set(train.target_probabilities.argmax(dim=1).tolist())
    unseen = {sample.label for sample in data.train} - {None} - seen
    if unseen:
        raise TrainingError(data.unreadable_classes_message(unseen))


def _first_failure_message(failed: Sequence[Failure]) -> str:
    return f"{failed[0].name}: {failed[0].reason}" if failed else "the data set has none"


def _validate_classifier(
    task: TrainingTask, classifier: LogisticClassifier, validation: HeadFeatures
) -> ValidationScores:
    if not torch.isfinite(classifier.weight).all():
        raise TrainingError(
            "the head's weights became NaN; check that the weights of --model are finite numbers"
        )
    _copy_weights_to_head(classifier, find_trainable_head(task.network))
    logits = classifier.compute_logits(validation.features)
    scores = compute_classification_scores(logits, validation.target_probabilities)
    return validate_localization(task, scores)


@torch.no_grad()
def _copy_weights_to_head(classifier: LogisticClassifier, head: ConvHead | PooledHead) -> None:
    layer = head.conv if isinstance(head, ConvHead) else head
    assert layer.bias is not None
    layer.weight.copy_(classifier.weight.reshape(layer.weight.shape))
    layer.bias.copy_(classifier.bias)


@torch.no_grad()
def _compute_head_features(
    task: TrainingTask,
    samples: Sequence[TrainingSample],
    advance: AdvanceCallback,
    *,
    mirrored: bool,
) -> HeadFeatures:
    features: list[Tensor] = []
    targets: list[Tensor] = []
    failed: list[Failure] = []
    recipe = task.recipe
    with _bypass_head(task.network.eval()) as pool:
        for batch in iter_batches(samples, task.transform, recipe.batch_size, recipe.workers):
            if isinstance(batch, Failure):
                failed.append(batch)
                advance(1)
                continue
            for version in _list_versions(batch, mirrored=mirrored):
                with create_autocast(task):
                    output = task.network(version.inputs.to(task.device))
                features.append(pool(output.float()).cpu())
                targets.append(task.label_batch(version))
            advance(len(batch.samples))
    class_count = len(task.data.labels.names)
    return HeadFeatures(
        _concatenate(features, 1), _concatenate(targets, class_count), tuple(failed)
    )


def _concatenate(parts: Sequence[Tensor], width: int) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0, width)


def _list_versions(batch: TrainingBatch, *, mirrored: bool) -> list[TrainingBatch]:
    return [batch, replace(batch, inputs=batch.inputs.flip(3))] if mirrored else [batch]


def create_autocast(task: TrainingTask) -> Any:
    """The context that computes in the recipe's precision."""
    return torch.autocast(task.device.type, torch.bfloat16, enabled=task.recipe.precision == "bf16")


@contextmanager
def _bypass_head(network: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside the context, the network outputs the head's input; yields the pooling function."""
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
