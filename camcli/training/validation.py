"""Measure a network on the validation photographs: its classes and its boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from camcli.core.errors import MethodError, TrainingError
from camcli.core.types import Failure
from camcli.engine.plan import plan_requests
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.metrics.aggregation import compute_metrics
from camcli.evaluation.predictions import ANNOTATED_CLASS, ModelMaps
from camcli.evaluation.scoreboard import Scoreboard
from camcli.evaluation.scores import ImageScore, score_predictions
from camcli.methods.registry import find_method
from camcli.models.model import Model, wrap_network
from camcli.models.zoo.architectures import create_untrained
from camcli.models.zoo.model_card import HeadKind
from camcli.models.zoo.replace_head import HEAD_ATTACHERS
from camcli.runs.run_config import RunConfig
from camcli.training.data.loader import TrainingBatch
from camcli.training.soft_labels import SoftLabeler
from camcli.training.task import LocalizationScore, TrainingTask, ValidationScores

METHOD_BY_HEAD: Mapping[HeadKind, str] = {"tscam": "tscam", "gap": "cam"}
MAX_EXPLAINED_AT_ONCE = 32  # images; maps need more memory than logits


def check_explainable(network: nn.Module, head_kind: HeadKind, original_model: Model) -> None:
    """Raise MethodError if the network with its new head cannot be loaded again or explained."""
    name, size = original_model.name, original_model.input_size
    again = create_untrained(
        original_model.architecture, size, original_model.transform.channel_count
    )
    HEAD_ATTACHERS[head_kind](again.network, 2, size, name)
    if again.network.state_dict().keys() != network.state_dict().keys():
        raise MethodError(
            f"camcli cannot load {name} with a new head from its file; choose another --model"
        )
    model = wrap_network(name, network, original_model.transform, device=original_model.device)
    plan_requests(model, [find_method(METHOD_BY_HEAD[head_kind])])


def validate_classification(
    predict_logits: Callable[[Tensor], Tensor],
    label_batch: SoftLabeler,
    batches: Iterator[TrainingBatch | Failure],
) -> tuple[ValidationScores, list[Failure]]:
    """The scores of a network's logits, and the photographs that cannot be read.

    Raises TrainingError if none can be read.
    """
    logits, targets, failed = [], [], []
    for batch in batches:
        if isinstance(batch, Failure):
            failed.append(batch)
            continue
        logits.append(predict_logits(batch.inputs))
        targets.append(label_batch(batch))
    if not logits:
        raise TrainingError(f"camcli cannot read any validation photographs: {failed[0].reason}")
    return compute_classification_scores(torch.cat(logits), torch.cat(targets)), failed


def compute_classification_scores(logits: Tensor, target_probabilities: Tensor) -> ValidationScores:
    """Top-1 accuracy and cross entropy of logits (n, K) against probabilities (n, K)."""
    correct = logits.argmax(dim=1) == target_probabilities.argmax(dim=1)
    loss = torch.nn.functional.cross_entropy(logits, target_probabilities)
    return ValidationScores(top1=float(correct.float().mean()), loss=float(loss))


def validate_localization(task: TrainingTask, scores: ValidationScores) -> ValidationScores:
    """Add GT-known of the maps that `explain` would draw, and its best threshold.

    Measures a frozen copy of the network, so that the training goes on undisturbed.
    """
    samples, recipe = task.data.localization_samples, task.recipe
    if not samples:
        return scores
    model = wrap_network(task.architecture, task.network, task.transform, device=task.device)
    found = compute_gt_known(
        model,
        METHOD_BY_HEAD[task.head_kind],
        samples,
        batch_size=min(recipe.batch_size, MAX_EXPLAINED_AT_ONCE),
        workers=recipe.workers,
    )
    if found is None:
        return scores
    return replace(scores, gt_known=found.gt_known, threshold=found.threshold)


def compute_gt_known(
    model: Model,
    method: str,
    samples: Sequence[EvaluationSample],
    *,
    batch_size: int,
    workers: int,
) -> LocalizationScore | None:
    """GT-known of a method at its best threshold; None if no sample can be scored."""
    maps = ModelMaps(
        RunConfig(
            model,
            plan_requests(model, [find_method(method)]),
            ANNOTATED_CLASS,
            batch_size=batch_size,
            workers=workers,
        )
    )
    board, row = Scoreboard(resamples=0), maps.rows[0]
    for found in score_predictions(maps, samples, seed=0):
        if isinstance(found, ImageScore):
            board.add_score(found)
    if row not in board.metric_sums:
        return None
    best = compute_metrics(board.metric_sums[row].sums)["max_box_acc"]
    assert best.threshold is not None
    return LocalizationScore(best.value, best.threshold)
