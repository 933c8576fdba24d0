"""The raw values that pictures draw as 0 and 1, if several maps share a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from camcli.core.errors import UsageError

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ValueRange:
    """One range for all maps; or, with `ranges`, one for each method and map name."""

    fixed: Range | None = None
    ranges: Mapping[tuple[str, str], Range] = field(default_factory=dict)

    def find(self, method_name: str, map_name: str) -> Range | None:
        """The lowest and the highest value of the scale, or None if the map has its own."""
        return self.fixed or self.ranges.get((method_name, map_name))

    def __str__(self) -> str:
        """The ranges as text, which tells one run's scale from another's."""
        named = {" ".join(key): own for key, own in sorted(self.ranges.items())}
        own = {"": self.fixed} if self.fixed else named
        return ", ".join(f"{name} {low:g}..{high:g}".strip() for name, (low, high) in own.items())


def parse_scale(text: str) -> ValueRange | None:
    """Read `image`, `run` or `LOW..HIGH`; None for `image`. Raises UsageError.

    The ranges of `run` are empty until the run has been measured.
    """
    if text in ("image", "run"):
        return ValueRange() if text == "run" else None
    low, dots, high = text.partition("..")
    try:
        fixed = float(low), float(high)
    except ValueError:
        dots = ""
    if not dots or not fixed[0] < fixed[1] or not all(abs(v) < float("inf") for v in fixed):
        raise UsageError(f"--scale {text}: write image, run, or a range such as 0..3.2")
    return ValueRange(fixed)
