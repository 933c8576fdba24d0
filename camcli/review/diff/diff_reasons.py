"""Why an image differs between two runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from camcli.core.errors import to_one_line
from camcli.review.diff.diff_limits import DiffLimits
from camcli.review.diff.map_measures import MapMeasures
from camcli.review.diff.run_matching import find_class_key
from camcli.review.result_lines import StoredExplanation

ReasonKind = Literal["failed", "class", "status", "size", "map", "score", "boxes"]
REASON_KINDS: tuple[ReasonKind, ...] = (  # the worst first
    "failed",
    "class",
    "status",
    "size",
    "map",
    "score",
    "boxes",
)


@dataclass(frozen=True, slots=True)
class DiffReason:
    """Why an image differs: the kind, and the words for people on one line."""

    kind: ReasonKind
    text: str


def find_reasons(
    base: StoredExplanation, new: StoredExplanation, measures: MapMeasures, limits: DiffLimits
) -> Iterator[DiffReason]:
    """Why an explanation differs. If its class changed, nothing else is a reason.

    Score, map and boxes are then of different things.
    """
    if find_class_key(base) != find_class_key(new):
        yield DiffReason("class", f"class {format_class(base)} became {format_class(new)}")
        return
    if base.is_predicted != new.is_predicted and None not in (base.is_predicted, new.is_predicted):
        verb = "is now" if new.is_predicted else "is no longer"
        yield DiffReason("class", f"{format_class(new)} {verb} the predicted class")
    if base.map_status != new.map_status:
        before, after = to_one_line(base.map_status)[:40], to_one_line(new.map_status)[:40]
        yield DiffReason("status", f"the map was {before} and is {after}")
    yield from _find_score_reasons(base, new, measures, limits)
    yield from _find_map_reasons(measures, limits)


def _find_score_reasons(
    base: StoredExplanation, new: StoredExplanation, measures: MapMeasures, limits: DiffLimits
) -> Iterator[DiffReason]:
    if limits.max_score_change is None:
        return
    if base.score_kind != new.score_kind:
        yield DiffReason(
            "score",
            f"the score was a {to_one_line(base.score_kind)[:40]} "
            f"and is a {to_one_line(new.score_kind)[:40]}",
        )
    elif (base.score is None) != (new.score is None):
        yield DiffReason("score", f"score {_format(base.score)} became {_format(new.score)}")
    elif abs(measures.score_change or 0) > limits.max_score_change:
        change = f"{measures.score_change:+.3f}"
        yield DiffReason(
            "score", f"score {_format(base.score)} became {_format(new.score)} ({change})"
        )


def _find_map_reasons(measures: MapMeasures, limits: DiffLimits) -> Iterator[DiffReason]:
    least = limits.min_correlation
    if least is not None and measures.map_problem:
        yield DiffReason("map", measures.map_problem)
    elif least is not None and measures.pearson is not None and measures.pearson < least:
        yield DiffReason("map", f"correlation {_format_below(measures.pearson, least)}")
    if limits.min_iou is not None and measures.iou is not None and measures.iou < limits.min_iou:
        yield DiffReason("boxes", f"box IoU {_format_below(measures.iou, limits.min_iou)}")


def format_class(explanation: StoredExplanation) -> str:
    """The class and its index on one line: `tabby (281)`."""
    label = to_one_line(explanation.class_label)
    short = label if len(label) <= 60 else f"{label[:59]}…"
    return f"{short or '-'} ({explanation.class_index})"


def _format(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.3g}"


def _format_below(value: float, limit: float) -> str:
    """A value with digits enough to see that it is below the limit."""
    digits = next((n for n in range(3, 9) if round(value, n) < limit), 9)
    return f"{value:.{digits}f} is below {limit:g}"
