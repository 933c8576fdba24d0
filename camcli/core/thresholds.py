"""The level above which a pixel of a map belongs to a box, as users write it."""

from __future__ import annotations

from camcli.core.errors import UsageError


def parse_threshold(text: str | None) -> str | float | None:
    """Read `otsu`, `none`, a percentile such as `p90`, or a fraction of the maximum in [0, 1).

    Raises UsageError.
    """
    if text is None or text in ("otsu", "none"):
        return text
    try:
        value = float(text.removeprefix("p"))
    except ValueError:
        value = -1.0
    if not 0 <= value < (100 if text.startswith("p") else 1):
        raise UsageError(f"--threshold {text}: write a fraction such as 0.2, otsu, p90 or none")
    return text if text.startswith("p") else value
