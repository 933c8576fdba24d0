"""The report of an evaluation: metrics of each row, as JSON, CSV or a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from camcli.core.types import FitMode
from camcli.evaluation.datasets.annotations import FAILURE_KINDS, Problem
from camcli.evaluation.metrics.aggregation import (
    METRICS,
    MetricValue,
    compute_curves,
    compute_metrics,
)
from camcli.evaluation.predictions import EvaluationRow
from camcli.evaluation.scoreboard import Scoreboard
from camcli.evaluation.scores import ImageScore

SCHEMA_VERSION = 1
MAX_EXAMPLES_PER_PROBLEM = 5  # in the report; problems.csv lists all


@dataclass(frozen=True, slots=True)
class RowMetrics:
    """The metrics of one row by name, and its curves for the plots."""

    row: EvaluationRow
    image_count: int
    blank_map_count: int
    metrics: Mapping[str, MetricValue]
    curves: Mapping[str, list[float]]

    @property
    def model(self) -> str:
        """The name of the model, or the folder of the maps."""
        return self.row.model

    @property
    def method(self) -> str:
        """The name of the method or the baseline."""
        return self.row.method

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that the method reads."""
        return self.row.layers


@dataclass(frozen=True, slots=True)
class LocalizationReport:
    """How well maps and boxes fit the ground truth of a data set.

    `rows` are the methods of each model, followed by its baselines. `problems` names everything
    that was left out. `complete` is False if the evaluation was interrupted.
    """

    dataset: str
    kind: str
    split: str | None
    limit: int | None
    fit: FitMode
    complete: bool
    seed: int
    rows: tuple[RowMetrics, ...]
    problems: tuple[Problem, ...]

    @property
    def baselines(self) -> tuple[RowMetrics, ...]:
        """The rows of the image-independent baselines."""
        return tuple(row for row in self.rows if row.row.baseline)

    @property
    def row_names(self) -> list[str]:
        """The name of each row; with several models it includes the model."""
        several = len({row.model for row in self.rows}) > 1
        return [f"{row.model} {row.row.name}" if several else row.row.name for row in self.rows]

    @property
    def image_count(self) -> int:
        """The number of scored images."""
        return max(row.image_count for row in self.rows)

    @property
    def has_failures(self) -> bool:
        """Whether an image or a map is missing or cannot be read."""
        return any(problem.kind in FAILURE_KINDS for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """The content of localization.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "kind": self.kind,
            "split": self.split,
            "limit": self.limit,
            "fit": self.fit,
            "complete": self.complete,
            "seed": self.seed,
            "metrics": {metric.name: metric.description for metric in METRICS},
            "rows": [{**row_to_json(row), "curves": row.curves} for row in self.rows],
            "problems": summarize_problems(self.problems),
        }


def summarize_rows(board: Scoreboard) -> tuple[RowMetrics, ...]:
    """The metrics of each row of a board: for each model its methods, then its baselines."""
    found = [
        RowMetrics(
            row,
            int(sums["images"][0]),
            board.blank_map_counts[row],
            compute_metrics(sums),
            compute_curves(sums),
        )
        for row, sums in ((row, tally.sums) for row, tally in board.metric_sums.items())
    ]
    models = list(dict.fromkeys(row.model for row in found))
    return tuple(sorted(found, key=lambda row: (models.index(row.model), row.row.baseline)))


def row_to_json(row_metrics: RowMetrics) -> dict[str, Any]:
    """One row without its curves, as on standard output."""
    metrics = {
        name: {key: _round_metric(value) for key, value in asdict(m).items() if value is not None}
        for name, m in row_metrics.metrics.items()
    }
    row = asdict(row_metrics.row) | {"layers": list(row_metrics.row.layers)}
    return {
        **row,
        "images": row_metrics.image_count,
        "blank_maps": row_metrics.blank_map_count,
        "metrics": metrics,
    }


def _round_metric(value: float) -> float:
    return round(value, 5)


def rows_to_csv(row_metrics: Sequence[RowMetrics]) -> str:
    """One line per row: each metric with its interval and its best threshold, if it has them."""
    rows = [_flatten_row(line) for line in row_metrics]
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    out = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue()


def _flatten_row(line: RowMetrics) -> dict[str, Any]:
    flat = asdict(line.row) | {"layers": " ".join(line.row.layers), "images": line.image_count}
    for name, metric in line.metrics.items():
        parts = (metric.value, metric.low, metric.high, metric.threshold)
        named = zip(("", "_low", "_high", "_at"), parts, strict=True)
        flat |= {f"{name}{part}": _round_metric(v) for part, v in named if v is not None}
    return flat


METRIC_COLUMNS = {
    "cls_1": "cls@1",
    "loc_1": "loc@1",
    "loc_5": "loc@5",
    "gt_known": "gt-known [95 %]",
    "max_box_acc": "maxboxacc at t",
    "held_out": "held out",
    "max_box_acc_v2": "v2",
    "pxap": "pxap",
    "pointing": "pointing",
    "energy": "energy",
    "box_acc": "box acc",
}


def format_metrics_table(row_metrics: Sequence[RowMetrics]) -> list[list[str]]:
    """The rows as a table for people, header first; columns without values are left out."""
    names = [name for name in METRIC_COLUMNS if any(name in line.metrics for line in row_metrics)]
    models = len({line.row.model for line in row_metrics}) > 1
    rows = [[*(["model"] if models else []), "method", *(METRIC_COLUMNS[name] for name in names)]]
    for line in row_metrics:
        cells = [_format_metric(name, line) for name in names]
        rows.append([*([line.row.model] if models else []), line.row.name, *cells])
    return rows


def _format_metric(name: str, line: RowMetrics) -> str:
    metric = line.metrics.get(name)
    if metric is None:
        return "-"
    value = f"{metric.value:.3f}"
    if name == "gt_known" and metric.low is not None and metric.high is not None:
        return f"{value} [{metric.low:.2f} {metric.high:.2f}]"
    return f"{value} at {metric.threshold:.2f}" if metric.threshold is not None else value


def summarize_problems(problems: Iterable[Problem]) -> dict[str, Any]:
    """The number of problems of each kind, and the first of them."""
    texts: dict[str, list[str]] = {}
    for problem in problems:
        texts.setdefault(problem.kind, []).append(str(problem))
    return {
        kind: {"count": len(found), "first": found[:MAX_EXAMPLES_PER_PROBLEM]}
        for kind, found in texts.items()
    }


def problems_to_csv(problems: Sequence[Problem]) -> str:
    """One line per problem."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["kind", "where", "detail"])
    out.writerows([p.kind, p.location, p.detail] for p in problems)
    return text.getvalue()


def image_score_to_json(image_score: ImageScore) -> dict[str, Any]:
    """One line of images.jsonl."""
    row, score = image_score.row, image_score.score
    annotation, found = image_score.sample.annotation, image_score.found_boxes
    boxes = {"path": str(annotation.image_path), **asdict(found)} if found else {}
    return {
        "image": annotation.image_name,
        "class_index": image_score.sample.class_index,
        "model": row.model,
        "method": row.method,
        "layers": list(row.layers),
        "map_status": image_score.status,
        "rank": image_score.rank,
        "iou": round(score.iou, 5),
        "pointing": score.is_pointing_hit,
        "split": score.error_type,
        **boxes,
    }
