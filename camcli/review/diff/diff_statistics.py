"""Sum up two runs: how far scores, maps and boxes differ over all images, and the verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from camcli.review.diff.diff_runs import RunDifference


@dataclass(frozen=True, slots=True)
class LowValues:
    """The median, the 1 % quantile and the minimum of a measure over all maps."""

    median: float
    percentile_1: float
    minimum: float

    def __str__(self) -> str:
        numbers = (self.median, self.percentile_1, self.minimum)
        return " / ".join(f"{number:.4g}" for number in numbers)


@dataclass(frozen=True, slots=True)
class DiffStatistics:
    """Measures of all maps of two runs; None where no map has the measure."""

    max_score_change: float | None
    pearson: LowValues | None
    spearman: LowValues | None
    iou: LowValues | None


def compute_statistics(difference: RunDifference) -> DiffStatistics:
    """Sum up the measures of maps whose class is the same."""
    measures = [item.measures for item in difference.maps if not item.is_class_changed]
    changes = [abs(m.score_change) for m in measures if m.score_change is not None]
    return DiffStatistics(
        max_score_change=max(changes, default=None),
        pearson=compute_low_values(m.pearson for m in measures),
        spearman=compute_low_values(m.spearman for m in measures),
        iou=compute_low_values(m.iou for m in measures),
    )


def compute_low_values(values: Iterable[float | None]) -> LowValues | None:
    """Median, 1 % quantile and minimum, interpolated linearly as numpy.quantile does."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return LowValues(_find_quantile(known, 0.5), _find_quantile(known, 0.01), known[0])


def _find_quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    index = int(place)
    above = ordered[min(index + 1, len(ordered) - 1)]
    return ordered[index] + (above - ordered[index]) * (place - index)


def format_verdict(difference: RunDifference) -> str:
    """One line: whether the runs are the same within the limits, and what was counted."""
    count = len(difference.images)
    parts = [f"{count} image{'s' * (count != 1)}"]
    changed, differing = difference.class_changed_images, difference.differing_images
    if changed or difference.limits.class_changes:
        parts.append(
            f"class changed in {len(changed)} (allowed: {difference.limits.class_changes})"
        )
    if differing or difference.allowed_count:
        parts.append(f"beyond a limit: {len(differing)} (allowed: {difference.allowed_count})")
    return f"{'the same' if difference.is_same else 'differs'}: {', '.join(parts)}"


def format_statistics(difference: RunDifference) -> str:
    """One line: the largest change of a score, and the lowest correlations and overlaps."""
    found = compute_statistics(difference)
    texts = [
        ""
        if found.max_score_change is None
        else f"score change up to {found.max_score_change:.2g}",
        f"correlation {found.pearson}" if found.pearson else "",
        f"box IoU {found.iou}" if found.iou else "",
    ]
    known = "; ".join(text for text in texts if text)
    return f"{known} (median / 1 % / minimum)" if found.pearson or found.iou else known
