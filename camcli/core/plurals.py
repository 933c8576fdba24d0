"""Numbers with their nouns."""

from __future__ import annotations


def format_count(count: int, noun: str) -> str:
    """A number with its noun: "1 box", "2 boxes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
