"""Read the JSON that a run left behind; damaged lines are counted, not fatal."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from camcli.core.errors import UsageError, to_one_line
from camcli.review.result_lines import LineError

T = TypeVar("T")
MAX_LISTED_LINES = 5


def iter_raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that are not empty. Raises UsageError if it cannot be read."""
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.strip())
    except OSError as error:
        raise UsageError(f"cannot read {to_one_line(path)}: {error.strerror}") from None


def parse_lines(path: Path, parse: Callable[[Any], T]) -> tuple[list[T], list[str]]:
    """What `parse` makes of each line, and the problems: lines that it refuses with LineError.

    `parse` gets the JSON of a line. Raises UsageError if the file cannot be read.
    """
    found: list[T] = []
    bad_lines: list[int] = []
    for number, raw_line in enumerate(iter_raw_lines(path), 1):
        try:
            found.append(parse(_load_json(raw_line)))
        except LineError:
            bad_lines.append(number)
    return found, _describe_bad_lines(path.name, bad_lines)


def load_json_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if it is damaged. Raises FileNotFoundError."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _load_json(raw_line: bytes) -> Any:
    try:
        return json.loads(raw_line)
    except (ValueError, RecursionError):
        raise LineError("not JSON") from None


def _describe_bad_lines(name: str, numbers: list[int]) -> list[str]:
    if not numbers:
        return []
    more = ", …" if len(numbers) > MAX_LISTED_LINES else ""
    shown = ", ".join(map(str, numbers[:MAX_LISTED_LINES])) + more
    noun = "line is" if len(numbers) == 1 else "lines are"
    return [f"{len(numbers)} {noun} damaged and left out (line {shown} of {name})"]
