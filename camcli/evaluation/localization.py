"""Maps against boxes: every image scored once, summed a row at a time, the worst kept in mind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from camcli.core.errors import ImageError
from camcli.evaluation.baselines import create_center_map, create_noise_map
from camcli.evaluation.datasets.annotations import (
    Annotation,
    CanvasAnnotation,
    Problem,
    annotation_to_canvas,
)
from camcli.evaluation.datasets.exif import transpose_annotation
from camcli.evaluation.datasets.samples import EvaluationSample
from camcli.evaluation.metrics.aggregation import MetricSums, compute_resample_weights
from camcli.evaluation.metrics.scoring import CANVAS_SIDE, MapScore, create_canvas_map, score_map
from camcli.evaluation.predictions import EvaluationRow, Prediction, PredictionSource
from camcli.io.images import load_exif_transpose


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One row's score of one image."""

    row: EvaluationRow
    sample: EvaluationSample
    score: MapScore
    status: str
    rank: int | None


@dataclass(slots=True)
class Scoreboard:
    """What a run has found so far. Of an image it keeps one IoU a row, to choose examples by."""

    resamples: int = 1000
    seed: int = 0
    metric_sums: dict[EvaluationRow, MetricSums] = field(default_factory=dict)
    blank_map_counts: dict[EvaluationRow, int] = field(default_factory=dict)
    ious: dict[EvaluationRow, dict[int, float]] = field(default_factory=dict)

    def add_score(self, image_score: ImageScore) -> None:
        """Take in one score."""
        weight = compute_resample_weights(
            image_score.sample.annotation.image_name, self.resamples, self.seed
        )
        self.metric_sums.setdefault(image_score.row, MetricSums()).add_counts(
            weight, image_score.score.counts
        )
        self.blank_map_counts[image_score.row] = self.blank_map_counts.get(image_score.row, 0) + (
            image_score.status != "ok"
        )
        if not image_score.row.baseline:
            self.ious.setdefault(image_score.row, {})[image_score.sample.index] = (
                image_score.score.iou
            )


ScoreOrProblem = ImageScore | Problem


def score_predictions(
    prediction_source: PredictionSource[list[ScoreOrProblem]],
    samples: Sequence[EvaluationSample],
    rows: Sequence[EvaluationRow],
    seed: int,
) -> Iterator[ScoreOrProblem]:
    """Every score and every Problem, image by image; the baselines beside the first row."""

    def score_prediction(given: Prediction) -> list[ScoreOrProblem]:
        return list(_iter_scores(given, given.row == rows[0], seed))

    for outcome in prediction_source(samples, rows, score_prediction):
        yield from [outcome] if isinstance(outcome, Problem) else outcome


def _iter_scores(given: Prediction, first: bool, seed: int) -> Iterator[ScoreOrProblem]:
    placed, problems = load_canvas_annotation(given.sample.annotation, given.image.size)
    if first:  # what ails the truth is said once an image, not once a row
        yield from problems
    if placed is None:
        return
    maps = {given.row: create_canvas_map(given.heatmap)}
    if first:
        maps[create_baseline_row(given.row, "gaussian")] = create_center_map()
        maps[create_baseline_row(given.row, "random")] = create_noise_map(
            given.sample.annotation.image_name, seed
        )
    for row, found in maps.items():
        judged = score_map(
            found, placed, row.threshold, given.rank, None if row.baseline else given.boxes
        )
        status = "ok" if row.baseline else given.status
        yield ImageScore(row, given.sample, judged, status, given.rank)


@lru_cache(maxsize=64)  # the rows of an image come one after another, and masks are slow to read
def load_canvas_annotation(
    annotation: Annotation, size: tuple[int, int]
) -> tuple[CanvasAnnotation | None, list[Problem]]:
    """The truth of an image of that size (W, H) on the canvas, turned with it, and its Problems."""
    truth = transpose_annotation(annotation, load_exif_transpose(annotation.image_path), size)
    try:
        return annotation_to_canvas(truth, size, CANVAS_SIDE)
    except ImageError as error:
        return None, [Problem("annotation cannot be read", truth.image_name, str(error))]


def create_baseline_row(row: EvaluationRow, name: str) -> EvaluationRow:
    """The baseline that stands beside a model's rows."""
    return EvaluationRow(row.model, name, (), row.threshold, baseline=True)


def choose_examples(ious: dict[int, float], count: int) -> dict[str, list[int]]:
    """The numbers of the images whose box fits worst, middling and best: `count` of each at most.

    None is shown twice while there are three.
    """
    count = min(count, max(1, len(ious) // 3))
    order = sorted(ious, key=lambda number: (ious[number], number))
    middle = max(0, len(order) // 2 - count // 2)
    return {
        "worst": order[:count],
        "median": order[middle : middle + count],
        "best": order[::-1][:count],
    }
