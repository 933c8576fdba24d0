"""How much two runs may differ: in one image, and in how many images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from camcli.core.errors import UsageError, to_one_line


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many images may differ or fail: a number, or a share of all images."""

    count: int = 0
    share: Fraction = Fraction(0)

    def count_images(self, image_count: int) -> int:
        """The number of images that may do so, of so many; a share is rounded down."""
        return max(self.count, int(self.share * image_count))


@dataclass(frozen=True, slots=True)
class DiffLimits:
    """The limits of a comparison; None switches a limit off.

    `class_changes` is the number of images whose class may change. The next three are limits for
    each map. `allowance` is the number of images that may exceed them.
    """

    class_changes: int = 0
    min_correlation: float | None = 0.98
    max_score_change: float | None = 0.05
    min_iou: float | None = None
    allowance: Allowance = Allowance()


def parse_limit(option: str, text: str | None, low: float, high: float) -> float | None:
    """Read a number, or `off` as None. Raises UsageError for other texts."""
    if text is None or text == "off":
        return None
    is_number = re.fullmatch(r"-?([0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9})", text)
    value = float(text) if is_number else high + 1
    if not low <= value <= high:
        advice = f"write a number from {low:g} to {high:g}, or off"
        raise UsageError(f"{option} {to_one_line(text)}: {advice}")
    return value


def parse_allowance(text: str, option: str = "--allow") -> Allowance:
    """Read a number of images such as `3`, or a share such as `1%` or `0.5%`. Raises UsageError."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        return Allowance(count=int(text))
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", text)
    share = Fraction(found[1]) / 100 if found else Fraction(2)
    if share > 1:
        advice = "write a number of images, or a share as 1%"
        raise UsageError(f"{option} {to_one_line(text)}: {advice}")
    return Allowance(share=share)
