"""Predictions: a map of one image by one row of the report, and the models that compute them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.geometry import crop_visible_map, map_to_original, normalize_array
from camcli.core.types import Box, Failure, ImageSource, MapStatus, Result
from camcli.engine.request import Request
from camcli.engine.target_rules import Target, TargetRule
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.metrics.scoring import CANVAS_SIDE
from camcli.io.labels import Labels
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunConfig

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One row of the report: a method on layers of a model, maps of a folder, or a baseline."""

    model: str
    method: str
    layers: tuple[str, ...]
    threshold: str | float = ""
    baseline: bool = False

    @property
    def name(self) -> str:
        """The method and its layers; of more than two layers only the first and the last."""
        many = len(self.layers) > 2
        layers = f"{self.layers[0]}..{self.layers[-1]}" if many else ",".join(self.layers)
        return f"{self.method} {layers}".strip()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A map of one image on the canvas (S, S) in [0, 1], with its boxes in pixels of the image.

    The boxes are those that `camcli explain` writes. `rank` is the rank of the annotated class
    among the model's predictions, from 0; None without a model.
    """

    sample: EvaluationSample
    row: EvaluationRow
    image: Image.Image
    heatmap: NDArray[np.floating]
    status: MapStatus
    boxes: tuple[Box, ...]
    rank: int | None = None


class MapSource(Protocol):
    """Maps to evaluate: the rows they belong to, and the predictions of each row.

    `unknown_class` is the index for classes that `labels` does not have; None makes them problems.
    """

    @property
    def labels(self) -> Labels:
        """The class names that camcli compares annotations with."""

    @property
    def rows(self) -> tuple[EvaluationRow, ...]:
        """The rows of the report."""

    @property
    def unknown_class(self) -> int | None:
        """The index for a class without a name in `labels`."""

    def iter_predictions(
        self,
        samples: Sequence[EvaluationSample],
        rows: Sequence[EvaluationRow],
        handle: Callable[[Prediction], T],
    ) -> Iterator[T | Problem]:
        """Yield what `handle` returns for each prediction, sample by sample, or a problem."""


@dataclass(frozen=True, slots=True)
class _AnnotatedImage(ImageSource):
    """An image to explain, with the sample to evaluate it on."""

    sample: EvaluationSample


def _get_sample(source: ImageSource) -> EvaluationSample:
    assert isinstance(source, _AnnotatedImage)
    return source.sample


ANNOTATED_CLASS = Target(
    (TargetRule("annotation", lambda source: (_get_sample(source).class_index,)),)
)
"""The target of an evaluation: each image is explained for the class of its annotation."""


@dataclass(frozen=True, slots=True)
class ModelMaps:
    """The maps that a model computes. The target of `config` must be ANNOTATED_CLASS."""

    config: RunConfig
    unknown_class: int | None = None

    @property
    def labels(self) -> Labels:
        """The class names of the model."""
        return self.config.model.labels

    @property
    def rows(self) -> tuple[EvaluationRow, ...]:
        """One row per request."""
        return tuple(map(self._create_row, self.config.requests))

    def _create_row(self, request: Request) -> EvaluationRow:
        layers = tuple(layer.name for layer in request.source_layers)
        threshold = self.config.find_threshold(request)
        return EvaluationRow(self.config.model.name, request.method.name, layers, threshold)

    def iter_predictions(
        self,
        samples: Sequence[EvaluationSample],
        rows: Sequence[EvaluationRow],
        handle: Callable[[Prediction], T],
    ) -> Iterator[T | Problem]:
        """Compute the map of each sample's class for each row, and yield what `handle` returns."""
        images = [
            _AnnotatedImage(s.annotation.image_path, s.annotation.image_name, "", s)
            for s in samples
        ]
        requests = tuple(r for r in self.config.requests if self._create_row(r) in rows)

        def finish(result: Result) -> T:
            return handle(_create_prediction(self.config, result))

        for outcome in run_pipeline(replace(self.config, requests=requests), images, finish):
            if isinstance(outcome, Failure):
                yield Problem("image cannot be read", outcome.name, outcome.reason)
            else:
                yield outcome


def _create_prediction(config: RunConfig, result: Result) -> Prediction:
    explanation, sample = result.explanations[0], result.sample
    fused = explanation.fused_map
    heatmap = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.float32)
    if fused.status == "ok":
        part = crop_visible_map(fused.normalized, sample.view, config.model.input_size)
        known = map_to_original(part, sample.view.to_image_size(CANVAS_SIDE, CANVAS_SIDE))
        seen = np.isfinite(known)
        # Resizing lowers the peak of a map, so it is normalized once more.
        heatmap[seen] = normalize_array(known[seen])
    return Prediction(
        sample=_get_sample(sample.source),
        row=EvaluationRow(
            config.model.name, result.method_name, result.layer_names, result.threshold
        ),
        image=sample.image,
        heatmap=heatmap,
        status=fused.status,
        boxes=explanation.boxes,
        rank=explanation.rank,
    )
