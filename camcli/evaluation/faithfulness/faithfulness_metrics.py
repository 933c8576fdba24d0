"""The metrics of faithfulness: one entry each, with the passes that it needs.

Every metric is a function of the evidence of an image and a row. `camcli evaluate faithfulness`,
its tables, its report and its docs read `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from camcli.core.correlation import compute_spearman
from camcli.core.errors import UsageError, format_suggestion
from camcli.evaluation.faithfulness.metric_values import (
    compute_area,
    compute_drop,
    compute_insertion,
    compute_road,
    compute_saco,
    compute_srg,
    compute_step_counts,
)

if TYPE_CHECKING:
    from camcli.evaluation.faithfulness.scored_image import ImageEvidence, RowEvidence

Extra = Literal["masked", "half", "cells", "groups"]  # passes besides the curves
ROAD_STEPS = 10  # shares 0.1 to 0.9


@dataclass(frozen=True, slots=True)
class FaithfulnessMetric:
    """A metric: which way is better, what it needs, and how it follows from the evidence.

    `better` is "higher", "lower", or "" for a value that only explains others. `compute` returns
    None where the evidence lacks what it needs.
    """

    name: str
    better: Literal["higher", "lower", ""]
    description: str
    compute: Callable[[ImageEvidence, RowEvidence], float | None]
    curves: tuple[str, ...] = ()
    extras: tuple[Extra, ...] = ()
    is_default: bool = True

    @property
    def label(self) -> str:
        """The name with an arrow that points to the better side."""
        return f"{self.name} {({'higher': '↑', 'lower': '↓'}).get(self.better, '')}".strip()


def compute_shares(pixel_count: int, steps: int) -> list[float]:
    """The true shares of removed pixels at each step: k_j / N."""
    return [count / pixel_count for count in compute_step_counts(pixel_count, steps)]


def _find_curve(row: RowEvidence, name: str) -> tuple[list[float], Sequence[float]] | None:
    found = row.curves.get(name)
    return (compute_shares(row.pixel_count, len(found) - 1), found) if found else None


def _deletion(_: ImageEvidence, row: RowEvidence) -> float | None:
    curve = _find_curve(row, "zero_morf")
    return compute_area(*curve) if curve else None


def _insertion(_: ImageEvidence, row: RowEvidence) -> float | None:
    curve = _find_curve(row, "blur_lerf")
    return compute_insertion(*curve) if curve else None


def _road(_: ImageEvidence, row: RowEvidence) -> float | None:
    most, least = row.curves.get("linear_morf"), row.curves.get("linear_lerf")
    return compute_road(most[1:-1], least[1:-1]) if most and least else None


def _srg(fill: str) -> Callable[[ImageEvidence, RowEvidence], float | None]:
    def compute(_: ImageEvidence, row: RowEvidence) -> float | None:
        most, least = (_find_curve(row, f"{fill}_{order}") for order in ("morf", "lerf"))
        return compute_srg(most[0], most[1], least[1]) if most and least else None

    return compute


def _drop(image: ImageEvidence, row: RowEvidence) -> float | None:
    return None if row.masked is None else compute_drop(image.confidence, row.masked)


def _increase(image: ImageEvidence, row: RowEvidence) -> float | None:
    return None if row.masked is None else 100.0 * (row.masked > image.confidence)


def _coverage(_: ImageEvidence, row: RowEvidence) -> float | None:
    return row.coverage


def _drop_at_half(image: ImageEvidence, row: RowEvidence) -> float | None:
    return None if row.at_half is None else compute_drop(image.confidence, row.at_half)


def _sds(image: ImageEvidence, row: RowEvidence) -> float | None:
    if not image.cell_drops or not row.cell_sums:
        return None
    return compute_spearman(row.cell_sums, image.cell_drops) or 0.0


def _saco(_: ImageEvidence, row: RowEvidence) -> float | None:
    if not row.group_means:
        return None
    return compute_saco(row.group_means, row.group_drops) or 0.0


METRICS: tuple[FaithfulnessMetric, ...] = (
    FaithfulnessMetric(
        "road",
        "higher",
        "half the mean difference between removing the least and the most relevant pixels first,"
        " with linear imputation (arXiv 2202.00449)",
        _road,
        curves=("linear_morf", "linear_lerf"),
    ),
    FaithfulnessMetric(
        "sds",
        "higher",
        "rank correlation of the map in each cell with what removing this cell costs"
        " (arXiv 2407.11910, without its training)",
        _sds,
        extras=("cells",),
    ),
    FaithfulnessMetric(
        "deletion",
        "lower",
        "area under the confidence while the most relevant pixels become grey (arXiv 1806.07421)",
        _deletion,
        curves=("zero_morf",),
    ),
    FaithfulnessMetric(
        "insertion",
        "higher",
        "area under the confidence while the most relevant pixels replace a blurred image"
        " (arXiv 1806.07421)",
        _insertion,
        curves=("blur_lerf",),
    ),
    FaithfulnessMetric(
        "drop",
        "lower",
        "average drop in percent of the confidence when the image is multiplied by the map"
        " (arXiv 1710.11063)",
        _drop,
        extras=("masked",),
    ),
    FaithfulnessMetric(
        "increase",
        "higher",
        "percent of images whose confidence rises then (arXiv 1710.11063)",
        _increase,
        extras=("masked",),
    ),
    FaithfulnessMetric("coverage", "", "mean of the map in [0,1]; drop follows it", _coverage),
    FaithfulnessMetric(
        "drop_at_half",
        "lower",
        "drop in percent when the less relevant half of the pixels becomes grey",
        _drop_at_half,
        extras=("half",),
    ),
    FaithfulnessMetric(
        "srg_zero",
        "higher",
        "area between removing the least and the most relevant pixels first, grey"
        " (arXiv 2401.06654)",
        _srg("zero"),
        curves=("zero_morf", "zero_lerf"),
        is_default=False,
    ),
    FaithfulnessMetric(
        "srg_blur",
        "higher",
        "the same with the blurred image (arXiv 2401.06654)",
        _srg("blur"),
        curves=("blur_morf", "blur_lerf"),
        is_default=False,
    ),
    FaithfulnessMetric(
        "saco",
        "higher",
        "whether groups of pixels with more relevance cost more confidence (arXiv 2404.01415)",
        _saco,
        extras=("groups",),
        is_default=False,
    ),
)


def parse_metrics(text: str) -> tuple[FaithfulnessMetric, ...]:
    """Read `standard`, `all`, or names separated by commas. Raises UsageError."""
    if text in ("standard", "all"):
        return tuple(metric for metric in METRICS if metric.is_default or text == "all")
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    by_name = {metric.name: metric for metric in METRICS}
    for name in names:
        if name not in by_name:
            near = format_suggestion(name, by_name)
            raise UsageError(f"--metrics {name}: no such metric{near} ({', '.join(by_name)})")
    if not names:
        raise UsageError("--metrics is empty; write standard, all, or names of metrics")
    return tuple(metric for metric in METRICS if metric.name in names)
