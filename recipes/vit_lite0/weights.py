"""The weights file as it ships, and the box threshold that is stored in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from camcli.core.errors import UsageError
from camcli.core.types import Transform
from camcli.evaluation.datasets.evaluation_samples import create_evaluation_samples
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import read_dataset
from camcli.io.labels import create_default_labels
from camcli.models.model import wrap_network
from camcli.models.zoo.builtin_names import BUILTIN_TSCAM, BUILTIN_VIT
from camcli.models.zoo.builtin_networks import (
    IMAGENET_CLASS_COUNT,
    VIT_INPUT_SIDE,
    assemble_builtin_vit,
)
from camcli.models.zoo.model_card import ModelCard, serialize_weights
from camcli.training.task import LocalizationScore
from camcli.training.validation import compute_gt_known

VALIDATION_BATCH_SIZE = 32


def pack_weights(state: Mapping[str, Tensor], thresholds: Mapping[str, float]) -> bytes:
    """The weights in half precision: half the size, and the same answers."""
    names = create_default_labels(IMAGENET_CLASS_COUNT).names
    card = ModelCard("tscam", BUILTIN_VIT, names, _create_transform(), thresholds)
    return serialize_weights({name: value.half() for name, value in state.items()}, card)


def choose_threshold(
    state: dict[str, Tensor], boxes: Path, workers: int
) -> tuple[LocalizationScore, list[str]]:
    """The threshold that fits the boxes best, with its GT-known; and the problems of the boxes.

    Raises UsageError if no box is usable.
    """
    network = assemble_builtin_vit(state, BUILTIN_TSCAM)
    model = wrap_network(BUILTIN_TSCAM, network, _create_transform())
    samples, problems = create_evaluation_samples(read_dataset(DatasetPaths(boxes)), model.labels)
    score = compute_gt_known(
        model, "tscam", samples, batch_size=VALIDATION_BATCH_SIZE, workers=workers
    )
    if score is None:
        raise UsageError(
            f"--boxes {boxes}: no box belongs to a readable photograph and an ImageNet class"
        )
    return score, [str(problem) for problem in problems]


def _create_transform() -> Transform:
    """The same as the CNN's."""
    half = (0.5, 0.5, 0.5)
    return Transform((VIT_INPUT_SIDE, VIT_INPUT_SIDE), half, half, "bicubic", 0.875)
