"""The report of `camcli evaluate faithfulness`: as JSON, as CSV, and as a table for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from camcli.evaluation.datasets.annotations import FAILURE_KINDS, Problem
from camcli.evaluation.faithfulness.evidence_board import (
    CurveSummary,
    Difference,
    EvidenceBoard,
)
from camcli.evaluation.faithfulness.faithfulness_metrics import METRICS, FaithfulnessMetric
from camcli.evaluation.faithfulness.faithfulness_options import FILLS
from camcli.evaluation.faithfulness.sanity_checks import SanityReport
from camcli.evaluation.localization_report import summarize_problems
from camcli.evaluation.metrics.aggregation import MetricValue
from camcli.evaluation.predictions import EvaluationRow

SCHEMA_VERSION = 1
FEW_IMAGES = 30
MAX_LEFT_SHARE = 0.1  # of the confidence, that a fill may leave
MARKS = {"better": "✓", "unclear": "·", "worse": "✗"}


@dataclass(frozen=True, slots=True)
class FaithfulnessRow:
    """One row: its metrics, its differences to the best baselines, and its mean curves."""

    row: EvaluationRow
    blank_map_count: int
    metrics: Mapping[str, MetricValue]
    differences: Mapping[str, Difference]
    curves: Mapping[str, CurveSummary]

    @property
    def method(self) -> str:
        """The name of the method, the folder or the baseline."""
        return self.row.method


@dataclass(frozen=True, slots=True)
class FaithfulnessReport:
    """Whether a network uses what maps show.

    `rows` are the methods, then the baselines, then the first method reversed. `image_means` are
    means over images: the confidence, what each fill leaves of it, and the share of images whose
    predicted class is true. `sanity` holds the results of the sanity checks, if any ran.
    """

    settings: Mapping[str, Any]
    metrics: tuple[FaithfulnessMetric, ...]
    rows: tuple[FaithfulnessRow, ...]
    image_count: int
    image_means: Mapping[str, float]
    agreement: Mapping[str, Mapping[str, float | None]]
    concordance: Mapping[str, float]
    problems: tuple[Problem, ...]
    complete: bool
    sanity: SanityReport | None = None

    @property
    def has_failures(self) -> bool:
        """Whether an image or a map could not be scored."""
        return any(problem.kind in FAILURE_KINDS for problem in self.problems)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before trusting the numbers."""
        found = []
        if self.image_count < FEW_IMAGES:
            found.append(
                f"{self.image_count} images are few: under {FEW_IMAGES} the intervals are wide"
            )
        confidence = self.image_means.get("confidence", 0.0)
        for name, left in self.image_means.items():
            if name.startswith("left ") and left > MAX_LEFT_SHARE * confidence:
                fill = name.removeprefix("left ")
                found.append(
                    f"fill {fill} leaves {left:.2f} of {confidence:.2f} when all is gone"
                    + ("; try --blur 51:41" if fill == "blur" else "")
                )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The content of faithfulness.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "complete": self.complete,
            "images": self.image_count,
            "settings": dict(self.settings),
            "metrics": {
                m.name: {"better": m.better or None, "description": m.description}
                for m in METRICS
                if m in self.metrics
            },
            "fills": dict(FILLS),
            "image_means": {name: round(value, 6) for name, value in self.image_means.items()},
            "rows": [
                row_to_json(row) | {"curves": {n: asdict(c) for n, c in row.curves.items()}}
                for row in self.rows
            ],
            "agreement": {name: dict(others) for name, others in self.agreement.items()},
            "concordance": dict(self.concordance),
            "sanity": sanity_to_json(self.sanity) if self.sanity else None,
            "warnings": self.warnings,
            "problems": summarize_problems(self.problems),
        }


def create_report(
    board: EvidenceBoard,
    settings: Mapping[str, Any],
    problems: Sequence[Problem],
    *,
    complete: bool,
    sanity: SanityReport | None = None,
) -> FaithfulnessReport:
    """Summarize a board."""
    return FaithfulnessReport(
        settings=settings,
        metrics=tuple(board.metrics),
        rows=tuple(
            FaithfulnessRow(
                row=row,
                blank_map_count=board.blank_map_counts[row],
                metrics=board.compute_metrics(row),
                differences={} if row.baseline else board.compare_with_baselines(row),
                curves=board.compute_curves(row),
            )
            for row in board.sums
        ),
        image_count=board.image_count,
        image_means=board.compute_image_means(),
        agreement=board.compute_agreement(),
        concordance=board.compute_concordance(),
        problems=tuple(problems),
        complete=complete,
        sanity=sanity,
    )


def row_to_json(row: FaithfulnessRow) -> dict[str, Any]:
    """One row without its curves, as on standard output."""
    return {
        "model": row.row.model,
        "method": row.row.method,
        "layers": list(row.row.layers),
        "baseline": row.row.baseline,
        "blank_maps": row.blank_map_count,
        "metrics": {
            name: _round_values({k: v for k, v in asdict(metric).items() if k != "threshold"})
            for name, metric in row.metrics.items()
        },
        "against_best_baseline": {
            name: _round_values(asdict(difference)) for name, difference in row.differences.items()
        },
    }


def _round_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}


def sanity_to_json(sanity: SanityReport) -> dict[str, Any]:
    """The sanity checks without their maps."""
    return {
        "checks": list(sanity.checks),
        "policy": "permute",
        "images": sanity.image_count,
        "seed": sanity.seed,
        "rows": [
            {
                "method": row.method,
                "verdict": row.verdict,
                "null": _round_values(asdict(row.null)),
                "cascade": {n: _round_values(asdict(s)) for n, s in row.cascade.items()},
                "independent": {n: _round_values(asdict(s)) for n, s in row.independent.items()},
                "classes": [_round_values(asdict(s)) for s in row.classes],
            }
            for row in sanity.rows
        ],
    }


def rows_to_csv(rows: Sequence[FaithfulnessRow]) -> str:
    """One line per row and metric: value, interval, and the best baseline."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    difference_names = [f"difference_{name}" for name in ("value", "low", "high")]
    header = ["model", "method", "layers", "baseline", "metric", "value", "low", "high"]
    out.writerow([*header, "best_baseline", *difference_names, "better_share", "mark"])
    for row in rows:
        start = [row.row.model, row.row.method, " ".join(row.row.layers), int(row.row.baseline)]
        for name, metric in row.metrics.items():
            own = [metric.value, metric.low, metric.high]
            other = list(asdict(row.differences[name]).values()) if name in row.differences else []
            cells = [round(v, 6) if isinstance(v, float) else v for v in (*own, *other)]
            out.writerow([*start, name, *cells])
    return text.getvalue()


def format_faithfulness_table(report: FaithfulnessReport) -> list[list[str]]:
    """The rows as a table for people: each metric, and a mark against the best baseline."""
    names = [m for m in report.metrics if any(m.name in row.metrics for row in report.rows)]
    return [
        ["method", *(metric.label for metric in names)],
        *([row.row.name, *(_format_cell(row, m.name) for m in names)] for row in report.rows),
    ]


def _format_cell(row: FaithfulnessRow, name: str) -> str:
    metric = row.metrics.get(name)
    if metric is None:
        return "-"
    is_percent = name in ("drop", "increase", "drop_at_half")
    value = f"{metric.value:.1f}%" if is_percent else f"{metric.value:.3f}"
    mark = MARKS[row.differences[name].mark] if name in row.differences else ""
    return f"{value} {mark}".strip()
