"""Text files of data sets, read whole or by lines."""

from __future__ import annotations

from pathlib import Path

from camcli.core.errors import UsageError


def load_text(path: Path) -> str:
    """A text file in UTF-8. Raises UsageError if it cannot be read."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{path}: {reason}") from None


def load_nonempty_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, numbered from 1. Raises UsageError like `load_text`."""
    numbered = enumerate(load_text(path).split("\n"), start=1)
    return [(number, line.rstrip("\r")) for number, line in numbered if line.strip()]


def parse_size(width: str, height: str) -> tuple[int, int]:
    """An image size (W, H). Raises ValueError if a side is not a positive number."""
    size = int(float(width)), int(float(height))
    if min(size) < 1:
        raise ValueError(f"the size {width} x {height} is not positive")
    return size
