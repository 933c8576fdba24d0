"""Sums of the metrics over images: means, bootstrap intervals, and comparisons with baselines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from camcli.evaluation.faithfulness.faithfulness_metrics import FaithfulnessMetric
from camcli.evaluation.faithfulness.scored_image import ImageEvidence, RowEvidence
from camcli.evaluation.metrics.aggregation import (
    ALL_IMAGES,
    FIRST_RESAMPLE,
    MetricSums,
    MetricValue,
    SumArrays,
    compute_resample_weights,
)
from camcli.evaluation.predictions import EvaluationRow

Matrix = NDArray[np.float64]
REVERSED = "reversed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row against the best baseline of a metric, on the same images and resamples.

    `better_share` is the share of images on which the row is better. `mark` is "better" or "worse"
    if the interval of the difference excludes 0, otherwise "unclear".
    """

    baseline: str
    value: float
    low: float | None
    high: float | None
    better_share: float
    mark: str


@dataclass(frozen=True, slots=True)
class CurveSummary:
    """The mean of a curve over images, with its 95 % interval; `share` is what was removed."""

    share: list[float]
    mean: list[float]
    low: list[float] | None
    high: list[float] | None


@dataclass(slots=True)
class EvidenceBoard:
    """The sums of every row. Memory does not grow with the number of images."""

    metrics: Sequence[FaithfulnessMetric]
    resamples: int = 1000
    seed: int = 0
    sums: dict[EvaluationRow, MetricSums] = field(default_factory=dict)
    blank_map_counts: dict[EvaluationRow, int] = field(default_factory=dict)
    image_sums: MetricSums = field(default_factory=MetricSums)
    rank_sums: dict[str, Matrix] = field(default_factory=dict)

    def add_evidence(self, image: ImageEvidence) -> None:
        """Add one image to the sums of all rows."""
        weights = compute_resample_weights(image.source.name, self.resamples, self.seed)
        self.image_sums.add_counts(weights, _create_image_counts(image))
        rows = [*image.rows, *_create_reversed_rows(image)]
        values = {row.row: self._compute_values(image, row) for row in rows}
        baselines = [row for row in values if row.baseline and row.method != REVERSED]
        for row in rows:
            counts = {"images": np.ones(1), **_create_curve_counts(row)}
            for metric in self.metrics:
                counts |= _create_metric_counts(metric, row.row, values, baselines)
            self.sums.setdefault(row.row, MetricSums()).add_counts(weights, counts)
            blank = row.status != "ok"
            self.blank_map_counts[row.row] = self.blank_map_counts.get(row.row, 0) + blank
        self._add_ranks([values[row.row] for row in image.rows])

    def _compute_values(self, image: ImageEvidence, row: RowEvidence) -> dict[str, float]:
        found = {metric.name: metric.compute(image, row) for metric in self.metrics}
        return {name: value for name, value in found.items() if value is not None}

    def _add_ranks(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Add how this image ranks the rows by each metric, for Kendall's W."""
        for metric in self.metrics:
            if all(metric.name in row for row in rows):
                ranks = rankdata([row[metric.name] for row in rows])
                self.rank_sums[metric.name] = self.rank_sums.get(metric.name, 0) + ranks

    @property
    def image_count(self) -> int:
        """The number of scored images."""
        sums = self.image_sums.sums
        return int(sums["images"][ALL_IMAGES, 0]) if sums else 0

    def compute_metrics(self, row: EvaluationRow) -> dict[str, MetricValue]:
        """The mean of each metric of a row, with its interval."""
        sums = self.sums[row].sums
        return {
            metric.name: MetricValue(*_summarize(_compute_means(sums, metric.name), sums))
            for metric in self.metrics
            if metric.name in sums
        }

    def compare_with_baselines(self, row: EvaluationRow) -> dict[str, Difference]:
        """For each metric the difference to its best baseline."""
        baselines = [b for b in self.sums if b.baseline and b.method != REVERSED and b != row]
        found: dict[str, Difference] = {}
        for metric in self.metrics:
            if metric.better and baselines and metric.name in self.sums[row].sums:
                found[metric.name] = self._compare(metric, row, baselines)
        return found

    def _compare(
        self, metric: FaithfulnessMetric, row: EvaluationRow, baselines: Sequence[EvaluationRow]
    ) -> Difference:
        sign = 1 if metric.better == "higher" else -1
        means = {b: _compute_means(self.sums[b].sums, metric.name) for b in baselines}
        best = max(baselines, key=lambda b: sign * means[b][ALL_IMAGES])
        own = self.sums[row].sums
        differences = _compute_means(own, metric.name) - means[best]
        value, low, high = _summarize(differences, own)
        better = _compute_means(own, f"{metric.name} better than {best.method}")[ALL_IMAGES]
        return Difference(
            best.method, value, low, high, float(better), _choose_mark(sign, low, high)
        )

    def compute_curves(self, row: EvaluationRow) -> dict[str, CurveSummary]:
        """The mean curves of a row."""
        sums = self.sums[row].sums
        names = [name.removeprefix("curve ") for name in sums if name.startswith("curve ")]
        return {name: self._summarize_curve(sums, name) for name in names}

    def _summarize_curve(self, sums: SumArrays, name: str) -> CurveSummary:
        means = sums[f"curve {name}"] / np.maximum(sums["images"], 1)
        steps = means.shape[1] - 1
        share = [step / steps for step in range(steps + 1)]
        drawn = means[FIRST_RESAMPLE:][sums["images"][FIRST_RESAMPLE:, 0] > 0]
        if not len(drawn):
            return CurveSummary(share, means[ALL_IMAGES].tolist(), None, None)
        low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
        return CurveSummary(share, means[ALL_IMAGES].tolist(), low.tolist(), high.tolist())

    def compute_agreement(self) -> dict[str, dict[str, float | None]]:
        """Kendall's tau-b between metrics, over the means of the rows; better is always more."""
        rows = [row for row in self.sums if row.method != REVERSED]
        oriented = {
            metric.name: np.array(
                [_compute_means(self.sums[row].sums, metric.name)[ALL_IMAGES] for row in rows]
            )
            * (1 if metric.better == "higher" else -1)
            for metric in self.metrics
            if metric.better and all(metric.name in self.sums[row].sums for row in rows)
        }
        return {
            name: {other: _compute_tau(values, oriented[other]) for other in oriented}
            for name, values in oriented.items()
        }

    def compute_concordance(self) -> dict[str, float]:
        """Kendall's W of each metric: how alike the images rank the rows, from 0 to 1."""
        n = self.image_count
        found = {}
        for name, ranks in self.rank_sums.items():
            k = len(ranks)
            if k > 1 and n > 1:
                spread = float(((ranks - ranks.mean()) ** 2).sum())
                found[name] = 12 * spread / (n**2 * (k**3 - k))
        return found

    def compute_image_means(self) -> dict[str, float]:
        """Means over images: confidence, predicted = true, and what is left by fill."""
        sums = self.image_sums.sums
        names = [name for name in sums if name != "images" and not name.startswith("known")]
        return {name: float(_compute_means(sums, name)[ALL_IMAGES]) for name in names}


def _create_image_counts(image: ImageEvidence) -> dict[str, Matrix]:
    counts = {"images": np.ones(1), "confidence": np.array([image.confidence])}
    counts |= {f"left {fill}": np.array([value]) for fill, value in image.left.items()}
    if image.true_class is not None:
        counts["correct"] = np.array([float(image.predicted_class == image.true_class)])
    return counts


def _create_curve_counts(row: RowEvidence) -> dict[str, Matrix]:
    return {f"curve {name}": np.asarray(curve, np.float64) for name, curve in row.curves.items()}


def _create_metric_counts(
    metric: FaithfulnessMetric,
    row: EvaluationRow,
    values: Mapping[EvaluationRow, Mapping[str, float]],
    baselines: Iterable[EvaluationRow],
) -> dict[str, Matrix]:
    if metric.name not in values[row]:
        return {}
    own, sign = values[row][metric.name], 1 if metric.better == "higher" else -1
    counts = {metric.name: np.array([own])}
    for baseline in baselines:
        better = sign * own > sign * values[baseline][metric.name]
        counts[f"{metric.name} better than {baseline.method}"] = np.array([float(better)])
    return counts


def _create_reversed_rows(image: ImageEvidence) -> list[RowEvidence]:
    """The reversed map of the first row, without passes: it proves the sign of the metrics."""
    first = image.rows[0]
    swapped = {
        name: first.curves[name.replace(order, other)]
        for name in first.curves
        for order, other in [("morf", "lerf") if name.endswith("morf") else ("lerf", "morf")]
        if name.replace(order, other) in first.curves
    }
    if not swapped:
        return []
    row = EvaluationRow(first.row.model, REVERSED, (), baseline=True)
    return [
        RowEvidence(
            row=row,
            status=first.status,
            pixel_count=first.pixel_count,
            tied_share=first.tied_share,
            coverage=1 - first.coverage,
            curves=swapped,
        )
    ]


def _compute_means(sums: SumArrays, name: str) -> Matrix:
    means: Matrix = sums[name][:, 0] / np.maximum(sums["images"][:, 0], 1)
    return means


def _summarize(values: Matrix, sums: SumArrays) -> tuple[float, float | None, float | None]:
    """The value over all images, and its 95 % interval over the resamples."""
    drawn = values[FIRST_RESAMPLE:][sums["images"][FIRST_RESAMPLE:, 0] > 0]
    if not len(drawn):
        return float(values[ALL_IMAGES]), None, None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values[ALL_IMAGES]), float(low), float(high)


def _choose_mark(sign: int, low: float | None, high: float | None) -> str:
    if low is None or high is None or low <= 0 <= high:
        return "unclear"
    return "better" if sign * low > 0 else "worse"


def _compute_tau(first: Matrix, second: Matrix) -> float | None:
    tau = float(kendalltau(first, second).statistic)
    return tau if np.isfinite(tau) else None
