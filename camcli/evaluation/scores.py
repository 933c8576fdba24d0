"""Localization scores: every prediction of every image against its annotation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from camcli.core.errors import ImageError
from camcli.evaluation.baselines import create_baseline_maps
from camcli.evaluation.datasets.annotations import (
    Annotation,
    CanvasAnnotation,
    Corners,
    Problem,
    annotation_to_canvas,
)
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.datasets.exif import transpose_annotation
from camcli.evaluation.metrics.scoring import CANVAS_SIDE, MapScore, create_canvas_map, score_map
from camcli.evaluation.predictions import EvaluationRow, MapSource, Prediction
from camcli.io.images import load_exif_transpose


@dataclass(frozen=True, slots=True)
class FoundBoxes:
    """The size (W, H) of an upright image, the boxes found in it, and the true ones, in pixels."""

    image_size: tuple[int, int]
    boxes: tuple[Corners, ...]
    truth_boxes: tuple[Corners, ...]


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The score of one row on one image. Baselines have no `found_boxes`."""

    row: EvaluationRow
    sample: EvaluationSample
    score: MapScore
    status: str
    rank: int | None
    found_boxes: FoundBoxes | None = None


def score_predictions(
    source: MapSource,
    samples: Sequence[EvaluationSample],
    seed: int,
    show: Callable[[Prediction, ImageScore], None] = lambda _prediction, _score: None,
) -> Iterator[ImageScore | Problem]:
    """Yield every score and every problem, image by image, baselines after the first row.

    `show` gets each prediction with its score, in the thread that scored it.
    """
    first_row = source.rows[0]

    def score(prediction: Prediction) -> list[ImageScore | Problem]:
        found = list(_iter_scores(prediction, prediction.row == first_row, seed))
        for own in found:
            if isinstance(own, ImageScore) and own.row == prediction.row:
                show(prediction, own)
        return found

    for outcome in source.iter_predictions(samples, source.rows, score):
        yield from [outcome] if isinstance(outcome, Problem) else outcome


def _iter_scores(
    prediction: Prediction, is_first_row: bool, seed: int
) -> Iterator[ImageScore | Problem]:
    """Yield the scores of a prediction; its first row also yields problems and baselines."""
    row, sample = prediction.row, prediction.sample
    annotation, problems = load_canvas_annotation(sample.annotation, prediction.image.size)
    if is_first_row:
        yield from problems
    if annotation is None:
        return
    heatmap = create_canvas_map(prediction.heatmap)
    score = score_map(heatmap, annotation, row.threshold, prediction.rank, prediction.boxes)
    found_boxes = _collect_boxes(prediction, annotation)
    yield ImageScore(row, sample, score, prediction.status, prediction.rank, found_boxes)
    if not is_first_row:
        return
    for name, baseline_map in create_baseline_maps(sample.annotation.image_name, seed).items():
        score = score_map(baseline_map, annotation, row.threshold, prediction.rank)
        yield ImageScore(create_baseline_row(row, name), sample, score, "ok", prediction.rank)


def _collect_boxes(prediction: Prediction, annotation: CanvasAnnotation) -> FoundBoxes:
    boxes = [(box.x1, box.y1, box.x2, box.y2) for box in prediction.boxes]
    truth = annotation.image_boxes.round(1).tolist()
    return FoundBoxes(prediction.image.size, tuple(boxes), tuple(map(tuple, truth)))


@lru_cache(maxsize=64)  # the rows of an image come one after another, and masks load slowly
def load_canvas_annotation(
    annotation: Annotation, size: tuple[int, int]
) -> tuple[CanvasAnnotation | None, list[Problem]]:
    """Place an annotation on the canvas, rotated with its image of that size (W, H).

    Returns the placed annotation, or None if no part fits, and the problems.
    """
    upright = transpose_annotation(annotation, load_exif_transpose(annotation.image_path), size)
    try:
        return annotation_to_canvas(upright, size, CANVAS_SIDE)
    except ImageError as error:
        return None, [Problem("annotation cannot be read", upright.image_name, str(error))]


def create_baseline_row(row: EvaluationRow, name: str) -> EvaluationRow:
    """Create the row of a baseline, for the report with the rows of a model."""
    return EvaluationRow(row.model, name, (), row.threshold, baseline=True)
