"""Train more than a head, by epochs of gradient descent as for TS-CAM; this can be resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import TrainingError, UsageError
from camcli.core.types import Failure
from camcli.training.data.loader import Augmentation, TrainingBatch, iter_batches, shuffle_samples
from camcli.training.data.training_samples import TrainingData
from camcli.training.linear_head import create_autocast, find_trainable_head
from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask, ValidationScores
from camcli.training.training_config import Recipe
from camcli.training.validation import validate_classification, validate_localization

ADAMW_WEIGHT_DECAY = 5e-4  # as in the configuration of TS-CAM's authors
LATE_RATE_FACTOR = 0.1  # of the learning rate, after half of the epochs


@dataclass(frozen=True, slots=True)
class TrainingState:
    """All that the next epoch depends on."""

    epoch: int
    network_weights: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Any]


@dataclass(slots=True)
class _EpochProgress:
    """The loss, the labels and the failures of an epoch so far."""

    loss_sum: float = 0.0
    image_count: int = 0
    labels: set[int | None] = field(default_factory=set)
    failed: list[Failure] = field(default_factory=list)


def train_epochs(
    task: TrainingTask, advance: AdvanceCallback, state: TrainingState | None = None
) -> Iterator[tuple[EpochResult, TrainingState]]:
    """Train epoch after epoch, from the start or from a state; yields each with its state.

    AdamW on the cross entropy of the logits; after half of the epochs the learning rate is a tenth.
    Raises TrainingError when the loss becomes NaN, or no photograph can be read.
    """
    network, recipe = task.network, task.recipe
    modules = _choose_trained_modules(network, recipe.last)
    optimizer = _create_optimizer(modules, recipe)
    if state is not None:
        network.load_state_dict(state.network_weights)
        _restore_optimizer(optimizer, state)
    for number in range(state.epoch + 1 if state else 1, recipe.epochs + 1):
        result = _run_epoch(task, modules, optimizer, number, advance)
        yield result, TrainingState(number, network.state_dict(), optimizer.state_dict())


def _create_optimizer(modules: Sequence[nn.Module], recipe: Recipe) -> torch.optim.Optimizer:
    decay = ADAMW_WEIGHT_DECAY if recipe.decay is None else recipe.decay
    parameters = [p for module in modules for p in module.requires_grad_(True).parameters()]
    return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=decay)


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    try:
        optimizer.load_state_dict(dict(state.optimizer_state))
        shapes = [(p.shape, kept["exp_avg"].shape) for p, kept in optimizer.state.items()]
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"--resume: the state of the optimizer cannot be restored ({error}); "
            "start again with --overwrite"
        ) from None
    if any(own != kept for own, kept in shapes):
        raise UsageError(
            "--resume: the state of the optimizer belongs to another network; "
            "start again with --overwrite"
        )


def _choose_trained_modules(network: nn.Module, last: int | None) -> list[nn.Module]:
    """The whole network, or its last blocks, the norm and the head."""
    if last is None:
        return [network]
    blocks = list(getattr(network, "blocks", ()))
    if not 0 < last <= len(blocks):
        raise UsageError(
            f"--train last:{last}: this network has {len(blocks)} blocks; write head, last:N or all"
        )
    norms = (getattr(network, name, None) for name in ("norm", "fc_norm"))
    return [
        *blocks[-last:],
        *(norm for norm in norms if norm is not None),
        find_trainable_head(network),
    ]


def _run_epoch(
    task: TrainingTask,
    modules: Sequence[nn.Module],
    optimizer: torch.optim.Optimizer,
    number: int,
    advance: AdvanceCallback,
) -> EpochResult:
    start = time.monotonic()
    recipe = task.recipe
    torch.manual_seed(recipe.seed + number)  # dropout depends on the epoch alone, so it can resume
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * (LATE_RATE_FACTOR if number > recipe.epochs / 2 else 1)
    for module in modules:  # frozen modules stay in eval mode
        module.train()
    progress = _train_epoch(task, optimizer, number, advance)
    scores, unreadable = _validate_network(task, advance)
    _check_finite_weights(scores, task.network, number)
    return EpochResult(
        number=number,
        loss=progress.loss_sum / progress.image_count,
        scores=scores,
        seconds=time.monotonic() - start,
        failed=(*progress.failed, *unreadable) if number == 1 else (),  # the same in every epoch
    )


def _train_epoch(
    task: TrainingTask, optimizer: torch.optim.Optimizer, number: int, advance: AdvanceCallback
) -> _EpochProgress:
    recipe = task.recipe
    augmentation = Augmentation(recipe.seed, number)
    samples = shuffle_samples(task.data.train, augmentation)
    progress = _EpochProgress()
    for batch in iter_batches(
        samples, task.transform, recipe.batch_size, recipe.workers, augmentation
    ):
        if isinstance(batch, Failure):
            progress.failed.append(batch)
            advance(1)
            continue
        loss = _train_step(task, optimizer, batch)
        progress.loss_sum += loss * len(batch.samples)
        progress.image_count += len(batch.samples)
        progress.labels |= {sample.label for sample in batch.samples}
        _check_finite_loss(loss, recipe, number, progress.image_count)
        advance(len(batch.samples))
    _check_all_classes_seen(progress, task.data)
    return progress


def _check_finite_loss(loss: float, recipe: Recipe, epoch: int, image_count: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} in epoch {epoch}, after {image_count} photographs; "
            f"try a lower --lr than {recipe.lr:g}, or --precision fp32"
        )


def _check_all_classes_seen(progress: _EpochProgress, data: TrainingData) -> None:
    if not progress.image_count:
        raise TrainingError(f"camcli cannot read any photographs: {progress.failed[0].reason}")
    unseen = {sample.label for sample in data.train} - {None} - progress.labels
    if unseen:
        raise TrainingError(data.unreadable_classes_message(unseen))


def _check_finite_weights(scores: ValidationScores, network: nn.Module, epoch: int) -> None:
    """The last step of an epoch can break the weights after the last loss was computed."""
    finite = all(bool(torch.isfinite(p).all()) for p in network.parameters())
    if not finite or not math.isfinite(scores.loss or 0):
        raise TrainingError(
            f"the weights became NaN or infinite in epoch {epoch}; try a lower --lr"
        )


def _train_step(
    task: TrainingTask, optimizer: torch.optim.Optimizer, batch: TrainingBatch
) -> float:
    with create_autocast(task):
        logits = task.network(batch.inputs.to(task.device))
    probabilities = task.label_batch(batch).to(task.device)
    loss: Any = nn.functional.cross_entropy(logits.float(), probabilities)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def _validate_network(
    task: TrainingTask, advance: AdvanceCallback
) -> tuple[ValidationScores, list[Failure]]:
    recipe, network = task.recipe, task.network.eval()

    def predict_logits(inputs: Tensor) -> Tensor:
        advance(len(inputs))
        with create_autocast(task):
            logits: Tensor = network(inputs.to(task.device))
        return logits.float().cpu()

    batches = iter_batches(task.data.validation, task.transform, recipe.batch_size, recipe.workers)
    scores, failed = validate_classification(predict_logits, task.label_batch, batches)
    return validate_localization(task, scores), failed
