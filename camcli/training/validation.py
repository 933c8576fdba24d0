"""How good a network is on the validation photographs: its answers, and its boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from camcli.core.errors import MethodError, TrainingError
from camcli.core.types import Failed
from camcli.engine import plan, targets
from camcli.evaluation import localization
from camcli.evaluation import predictions as given
from camcli.evaluation.datasets.registry import Item
from camcli.evaluation.localization import Board, Scored
from camcli.evaluation.metrics import aggregation as tally
from camcli.methods.registry import get
from camcli.models import model as models
from camcli.models.model import Model
from camcli.models.zoo import architectures
from camcli.models.zoo import replace_head as refit
from camcli.models.zoo.model_card import Kind
from camcli.runs.config import Job
from camcli.training.data.loader import Batch
from camcli.training.soft_labels import Answers
from camcli.training.task import Judged, Lesson

METHOD: Mapping[Kind, str] = {"tscam": "tscam", "gap": "cam"}  # the method that a head is for


def can_be_explained(network: nn.Module, kind: Kind, before: Model) -> None:
    """Raises MethodError where the network with its new head could not be loaded and explained."""
    again = architectures.blank(before.architecture, before.size)
    refit.REFITS[kind](again.network, 2, before.size, before.name)
    if again.network.state_dict().keys() != network.state_dict().keys():
        raise MethodError(f"{before.name} with a new head could not be loaded again")
    model = models.wrap(before.name, deepcopy(network), before.transform, device=before.device)
    plan.plan(model, [get(METHOD[kind])])


def answers(
    answer: Callable[[Tensor], Tensor], wanted: Answers, batches: Iterator[Batch | Failed]
) -> tuple[Judged, list[Failed]]:
    """How the logits of photographs fit what they should say; and what could not be read."""
    logits, targets, failed = [], [], []
    for batch in batches:
        if isinstance(batch, Failed):
            failed.append(batch)
            continue
        logits.append(answer(batch.inputs))
        targets.append(wanted(batch))
    if not logits:
        raise TrainingError(f"none of the validation photographs can be read: {failed[0].reason}")
    return marks(torch.cat(logits), torch.cat(targets)), failed


def marks(logits: Tensor, wanted: Tensor) -> Judged:
    """Top-1 and cross entropy of logits (n, K) against probabilities (n, K)."""
    right = logits.argmax(dim=1) == wanted.argmax(dim=1)
    loss = torch.nn.functional.cross_entropy(logits, wanted)
    return Judged(float(right.float().mean()), float(loss))


def boxes(lesson: Lesson, judged: Judged) -> Judged:
    """With GT-known at the best threshold, and that threshold; of the maps that `explain` makes.

    The network is not touched: a copy of it is frozen and measured.
    """
    items, recipe = lesson.photos.truths, lesson.recipe
    if not items:
        return judged
    copied = deepcopy(lesson.network)
    model = models.wrap(lesson.name, copied, lesson.transform, device=lesson.device)
    size = min(recipe.batch_size, 32)
    known, threshold = located(model, METHOD[lesson.kind], items, size, recipe.workers)
    return replace(judged, gt_known=known, threshold=threshold)


def located(
    model: Model, method: str, items: Sequence[Item], batch_size: int, workers: int
) -> tuple[float | None, float | None]:
    """GT-known of a method at its best threshold, and that threshold."""
    requests = plan.plan(model, [get(method)])
    any_class = targets.parse("predicted")(model.labels)  # each truth's takes its place
    job = Job(model, requests, any_class, "squash", batch_size, workers)
    board, rows = Board(resamples=0), given.rows_of(job)
    for found in localization.run(partial(given.from_model, job), items, rows, seed=0):
        if isinstance(found, Scored):
            board.add(found)
    if rows[0] not in board.tallies:
        return None, None
    best = tally.measured(board.tallies[rows[0]].sums)["max_box_acc"]
    return best.value, best.threshold
