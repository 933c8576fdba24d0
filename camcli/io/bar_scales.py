"""What the ends of a sheet's colour bar mean."""

from __future__ import annotations

from dataclasses import dataclass

from camcli.io.writers import DrawingStyle


@dataclass(frozen=True, slots=True)
class BarScale:
    """The texts at the lower and the upper end of a colour bar, and the text beside it.

    `labels` go from long to short; the first that fits stands beside the bar.
    """

    low: str = "0"
    high: str = "1"
    labels: tuple[str, ...] = (
        "each map from its minimum to its maximum",
        "each map from min to max",
        "min to max",
        "",
    )


SIGNED_SCALE = BarScale("\N{MINUS SIGN}", "+", ("pale is 0", ""))


def create_bar_scale(style: DrawingStyle) -> BarScale:
    """The scale of maps that are drawn in this style."""
    shared, last = style.value_range, f"p{style.clip:g}"
    if shared and shared.fixed:
        low, high = (f"{value:.3g}" for value in shared.fixed)
        return BarScale(low, high, ("the same for all maps", ""))
    if shared:
        return BarScale(labels=("the same for all maps of a column", "by column", ""))
    if style.clip < 100:
        long = f"each map from its minimum to its percentile {style.clip:g}"
        return BarScale(labels=(long, f"each map from min to {last}", f"min to {last}", ""))
    return BarScale()
