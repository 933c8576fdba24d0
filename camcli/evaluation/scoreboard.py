"""The sums of all scores so far, from which the metrics of each row are computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from camcli.evaluation.metrics.aggregation import MetricSums, compute_resample_weights
from camcli.evaluation.predictions import EvaluationRow
from camcli.evaluation.scores import ImageScore


@dataclass(slots=True)
class Scoreboard:
    """The sums of each row, and one IoU per image and row, which choose the examples."""

    resamples: int = 1000
    seed: int = 0
    metric_sums: dict[EvaluationRow, MetricSums] = field(default_factory=dict)
    blank_map_counts: dict[EvaluationRow, int] = field(default_factory=dict)
    ious: dict[EvaluationRow, dict[int, float]] = field(default_factory=dict)

    def add_score(self, image_score: ImageScore) -> None:
        """Add one score to the sums of its row."""
        row, sample, score = image_score.row, image_score.sample, image_score.score
        weights = compute_resample_weights(sample.annotation.image_name, self.resamples, self.seed)
        self.metric_sums.setdefault(row, MetricSums()).add_counts(weights, score.counts)
        is_blank = image_score.status != "ok"
        self.blank_map_counts[row] = self.blank_map_counts.get(row, 0) + is_blank
        if not row.baseline:
            self.ious.setdefault(row, {})[sample.index] = score.iou


def choose_examples(ious: Mapping[int, float], count: int) -> dict[str, list[int]]:
    """The indices of the samples with the worst, median and best IoU: at most `count` of each.

    No sample is in two groups if there are three or more.
    """
    count = min(count, max(1, len(ious) // 3))
    order = sorted(ious, key=lambda index: (ious[index], index))
    middle = max(0, len(order) // 2 - count // 2)
    return {
        "worst": order[:count],
        "median": order[middle : middle + count],
        "best": order[::-1][:count],
    }
