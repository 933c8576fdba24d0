"""What a run found, as data: a document for machines, rows for a table, the Problems counted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.localization import Board, Scored
from camcli.evaluation.metrics.aggregation import METRICS, Measured, curves, measured
from camcli.evaluation.predictions import Row

SCHEMA_VERSION = 1
EXAMPLES = 5  # Problems of a kind that are told; all are in problems.csv


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the report."""

    row: Row
    images: int
    blank: int
    metrics: Mapping[str, Measured]
    curves: Mapping[str, list[float]]


def lines(board: Board) -> list[Line]:
    """A Line for each row of a board, methods before the baselines of their model."""
    found = [
        Line(row, int(sums["images"][0]), board.blank[row], measured(sums), curves(sums))
        for row, sums in ((row, tally.sums) for row, tally in board.tallies.items())
    ]
    models = list(dict.fromkeys(line.row.model for line in found))
    return sorted(found, key=lambda line: (models.index(line.row.model), line.row.baseline))


def document(
    found: Sequence[Line], problems: Sequence[Problem], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything, for localization.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        **about,
        "metrics": {metric.name: metric.what for metric in METRICS},
        "rows": [{**describe(line), "curves": line.curves} for line in found],
        "problems": counted(problems),
    }


def describe(line: Line) -> dict[str, Any]:
    """One row without its curves: a line of standard output."""
    told = {
        name: {key: _rounded(value) for key, value in asdict(m).items() if value is not None}
        for name, m in line.metrics.items()
    }
    row = asdict(line.row) | {"layers": list(line.row.layers)}
    return {**row, "images": line.images, "blank_maps": line.blank, "metrics": told}


def _rounded(value: float) -> float:
    return round(value, 5)


def as_csv(found: Sequence[Line]) -> str:
    """A row a line: each metric, its interval where it has one, and where it is best."""
    rows = [_flat(line) for line in found]
    columns = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    out = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    return text.getvalue()


def _flat(line: Line) -> dict[str, Any]:
    flat = asdict(line.row) | {"layers": " ".join(line.row.layers), "images": line.images}
    for name, metric in line.metrics.items():
        parts = (metric.value, metric.low, metric.high, metric.threshold)
        named = zip(("", "_low", "_high", "_at"), parts, strict=True)
        flat |= {f"{name}{part}": _rounded(v) for part, v in named if v is not None}
    return flat


COLUMNS = {
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


def table(found: Sequence[Line]) -> list[list[str]]:
    """The rows for people: a head, then a Line each; columns that nothing fills are left out."""
    names = [name for name in COLUMNS if any(name in line.metrics for line in found)]
    models = len({line.row.model for line in found}) > 1
    rows = [[*(["model"] if models else []), "method", *(COLUMNS[name] for name in names)]]
    for line in found:
        cells = [_told(name, line) for name in names]
        rows.append([*([line.row.model] if models else []), line.row.name, *cells])
    return rows


def _told(name: str, line: Line) -> str:
    metric = line.metrics.get(name)
    if metric is None:
        return "-"
    value = f"{metric.value:.3f}"
    if name == "gt_known" and metric.low is not None and metric.high is not None:
        return f"{value} [{metric.low:.2f} {metric.high:.2f}]"
    return f"{value} at {metric.threshold:.2f}" if metric.threshold is not None else value


def counted(problems: Iterable[Problem]) -> dict[str, Any]:
    """How many Problems of each kind, and the first of them."""
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(str(problem))
    return {kind: {"count": len(told), "first": told[:EXAMPLES]} for kind, told in kinds.items()}


def problems_csv(problems: Sequence[Problem]) -> str:
    """Every Problem, a row each."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["kind", "where", "detail"])
    out.writerows([p.kind, p.where, p.detail] for p in problems)
    return text.getvalue()


def describe_image(scored: Scored) -> dict[str, Any]:
    """One line of images.jsonl."""
    row, judged = scored.row, scored.score
    return {
        "image": scored.item.truth.image,
        "class_index": scored.item.class_index,
        "model": row.model,
        "method": row.method,
        "layers": list(row.layers),
        "map_status": scored.status,
        "rank": scored.rank,
        "iou": round(judged.iou, 5),
        "pointing": judged.pointed,
        "split": judged.split,
    }
