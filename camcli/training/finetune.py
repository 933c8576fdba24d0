"""More than a head: epochs of gradient descent, as TS-CAM is trained, that can be resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import TrainingError, UsageError
from camcli.core.types import Failure
from camcli.training.data.loader import Augmentation, TrainingBatch, iter_batches, shuffle_samples
from camcli.training.linear_head import create_autocast, find_trainable_head
from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask, ValidationScores
from camcli.training.validation import validate_classification, validate_localization

ADAMW_WEIGHT_DECAY = 5e-4  # the authors' configuration


@dataclass(frozen=True, slots=True)
class TrainingState:
    """All that the next epoch depends on."""

    epoch: int
    network_weights: Mapping[str, Tensor]
    optimizer_state: Mapping[str, Any]


def train_epochs(
    task: TrainingTask, advance: AdvanceCallback, state: TrainingState | None = None
) -> Iterator[tuple[EpochResult, TrainingState]]:
    """Epoch after epoch, from the start or from a state; each with the state that it leaves.

    AdamW on the cross entropy of the logits, the rate a tenth from half of the epochs on. Raises
    TrainingError when the loss is no number, or no photograph can be read.
    """
    network, recipe = task.network, task.recipe
    parts = _choose_trained_modules(network, recipe.last)
    trained = [p for part in parts for p in part.requires_grad_(True).parameters()]
    solver = torch.optim.AdamW(
        trained,
        lr=recipe.lr,
        weight_decay=ADAMW_WEIGHT_DECAY if recipe.decay is None else recipe.decay,
    )
    if state is not None:
        network.load_state_dict(state.network_weights)
        _restore_optimizer(solver, state)
    for number in range(state.epoch + 1 if state else 1, recipe.epochs + 1):
        began = time.monotonic()
        torch.manual_seed(recipe.seed + number)  # what dropout draws goes by the epoch alone
        for group in solver.param_groups:
            group["lr"] = recipe.lr * (0.1 if number > recipe.epochs / 2 else 1)
        for part in parts:  # what is frozen stays in eval mode
            part.train()
        loss, failed = _train_epoch(task, solver, number, advance)
        judged, also = _validate_network(task, advance)
        _check_finite_weights(judged, network, number)
        once = (*failed, *also) if number == 1 else ()
        epoch = EpochResult(number, loss, judged, time.monotonic() - began, once)
        yield epoch, TrainingState(number, network.state_dict(), solver.state_dict())


def _restore_optimizer(solver: torch.optim.Optimizer, state: TrainingState) -> None:
    try:
        solver.load_state_dict(dict(state.optimizer_state))
        shapes = [(p.shape, kept["exp_avg"].shape) for p, kept in solver.state.items()]
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, IndexError) as error:
        raise UsageError(f"--resume: its optimizer cannot be restored ({error})") from None
    if any(own != kept for own, kept in shapes):
        raise UsageError("--resume: its optimizer is of another network")


def _choose_trained_modules(network: nn.Module, last: int | None) -> list[nn.Module]:
    """What is trained: all of the network, or its last blocks, the norm and the head."""
    if last is None:
        return [network]
    whole: Any = network
    blocks = list(getattr(network, "blocks", ()))
    if not 0 < last <= len(blocks):
        raise UsageError(f"--train last:{last}: this network has {len(blocks)} blocks")
    norms = (getattr(whole, name, None) for name in ("norm", "fc_norm"))
    return [
        *blocks[-last:],
        *(norm for norm in norms if norm is not None),
        find_trainable_head(network),
    ]


def _train_epoch(
    lesson: TrainingTask, solver: torch.optim.Optimizer, number: int, advance: AdvanceCallback
) -> tuple[float, list[Failure]]:
    recipe = lesson.recipe
    augment = Augmentation(recipe.seed, number)
    photos = shuffle_samples(lesson.data.train, augment)
    total, seen, failed = 0.0, 0, []
    labels: set[int | None] = set()
    for batch in iter_batches(photos, lesson.transform, recipe.batch_size, recipe.workers, augment):
        if isinstance(batch, Failure):
            failed.append(batch)
            advance(1)
            continue
        labels |= {photo.label for photo in batch.samples}
        loss = _train_step(lesson, solver, batch)
        total, seen = total + loss * len(batch.samples), seen + len(batch.samples)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {number}, after {seen} photographs; try a lower --lr "
                f"than {recipe.lr:g}, or --precision fp32"
            )
        advance(len(batch.samples))
    told = {photo.label for photo in photos} - {None}
    if not seen:
        raise TrainingError(f"none of the photographs can be read: {failed[0].reason}")
    if told - labels:
        raise TrainingError(lesson.data.unreadable_classes_message(told - labels))
    return total / seen, failed


def _check_finite_weights(judged: ValidationScores, network: nn.Module, number: int) -> None:
    """The last step of an epoch may have broken what its loss did not yet show."""
    finite = all(bool(torch.isfinite(p).all()) for p in network.parameters())
    if not finite or not math.isfinite(judged.loss or 0):
        raise TrainingError(
            f"the weights became NaN or infinite in epoch {number}; try a lower --lr"
        )


def _train_step(lesson: TrainingTask, solver: torch.optim.Optimizer, batch: TrainingBatch) -> float:
    with create_autocast(lesson):
        logits = lesson.network(batch.inputs.to(lesson.device))
    wanted = lesson.label_batch(batch).to(lesson.device)
    loss: Any = nn.functional.cross_entropy(logits.float(), wanted)
    solver.zero_grad()
    loss.backward()
    solver.step()
    return float(loss.detach())


@torch.no_grad()
def _validate_network(
    lesson: TrainingTask, advance: AdvanceCallback
) -> tuple[ValidationScores, list[Failure]]:
    recipe, network = lesson.recipe, lesson.network.eval()

    def predict_logits(pixels: Tensor) -> Tensor:
        advance(len(pixels))
        with create_autocast(lesson):
            logits: Tensor = network(pixels.to(lesson.device))
        return logits.float().cpu()

    held = iter_batches(lesson.data.validation, lesson.transform, recipe.batch_size, recipe.workers)
    judged, failed = validate_classification(predict_logits, lesson.label_batch, held)
    return validate_localization(lesson, judged), failed
