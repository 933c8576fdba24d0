"""What a run found, as data: a document for machines, rows for a table, the Problems counted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.localization import ImageScore, Scoreboard
from camcli.evaluation.metrics.aggregation import (
    METRICS,
    MetricValue,
    compute_curves,
    compute_metrics,
)
from camcli.evaluation.predictions import EvaluationRow

SCHEMA_VERSION = 1
MAX_EXAMPLES_PER_PROBLEM = 5  # Problems of a kind that are told; all are in problems.csv


@dataclass(frozen=True, slots=True)
class RowMetrics:
    """One row of the report."""

    row: EvaluationRow
    image_count: int
    blank_map_count: int
    metrics: Mapping[str, MetricValue]
    curves: Mapping[str, list[float]]


def summarize_rows(board: Scoreboard) -> list[RowMetrics]:
    """A Line for each row of a board, methods before the baselines of their model."""
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
    models = list(dict.fromkeys(line.row.model for line in found))
    return sorted(found, key=lambda line: (models.index(line.row.model), line.row.baseline))


def create_report(
    row_metrics: Sequence[RowMetrics], problems: Sequence[Problem], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, for localization.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        "metrics": {metric.name: metric.description for metric in METRICS},
        "rows": [{**row_to_json(line), "curves": line.curves} for line in row_metrics],
        "problems": count_problems(problems),
    }


def row_to_json(row_metrics: RowMetrics) -> dict[str, Any]:
    """One row without its curves: a line of standard output."""
    told = {
        name: {key: _round_metric(value) for key, value in asdict(m).items() if value is not None}
        for name, m in row_metrics.metrics.items()
    }
    row = asdict(row_metrics.row) | {"layers": list(row_metrics.row.layers)}
    return {
        **row,
        "images": row_metrics.image_count,
        "blank_maps": row_metrics.blank_map_count,
        "metrics": told,
    }


def _round_metric(value: float) -> float:
    return round(value, 5)


def rows_to_csv(row_metrics: Sequence[RowMetrics]) -> str:
    """A row a line: each metric, its interval where it has one, and where it is best."""
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
    """The rows for people: a head, then a Line each; columns that nothing fills are left out."""
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


def count_problems(problems: Iterable[Problem]) -> dict[str, Any]:
    """How many Problems of each kind, and the first of them."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(str(problem))
    return {
        kind: {"count": len(told), "first": told[:MAX_EXAMPLES_PER_PROBLEM]}
        for kind, told in kinds.items()
    }


def problems_to_csv(problems: Sequence[Problem]) -> str:
    """Every Problem, a row each."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["kind", "where", "detail"])
    out.writerows([p.kind, p.location, p.detail] for p in problems)
    return text.getvalue()


def image_score_to_json(image_score: ImageScore) -> dict[str, Any]:
    """One line of images.jsonl."""
    row, judged = image_score.row, image_score.score
    return {
        "image": image_score.sample.annotation.image_name,
        "class_index": image_score.sample.class_index,
        "model": row.model,
        "method": row.method,
        "layers": list(row.layers),
        "map_status": image_score.status,
        "rank": image_score.rank,
        "iou": round(judged.iou, 5),
        "pointing": judged.is_pointing_hit,
        "split": judged.error_type,
    }
