"""A summary of what differs as Markdown, for the page of a run of GitHub Actions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from camcli.core.errors import OutputError, to_one_line
from camcli.review.diff.diff_runs import MapDifference, RunDifference
from camcli.review.diff.diff_statistics import format_statistics, format_verdict

# GitHub drops a summary above 1024 kB. This is below it, whether a kB has 1000 or 1024 bytes.
SUMMARY_BYTES = 1024 * 1000 - 1
MAX_CELL_CHARACTERS = 120
TABLE_HEAD = (
    "| image | method | why | score | correlation | box IoU |",
    "|---|---|---|---|---|---|",
)


def append_summary(difference: RunDifference, path: Path) -> bool:
    """Append the summary to a file; False if the file has no room left for even the verdict.

    The file stays below GitHub's limit, what it already holds included. Raises OutputError.
    """
    try:
        with path.open("ab") as file:  # a step before this one may have written as well
            size = os.fstat(file.fileno()).st_size
            start = b"" if not size else b"\n\n"
            content = encode_summary(difference, SUMMARY_BYTES - size - len(start))
            if content:
                file.write(start + content)
            return bool(content)
    except OSError as error:
        raise OutputError(f"cannot write {to_one_line(path)}: {error.strerror}") from None


def encode_summary(difference: RunDifference, max_bytes: int) -> bytes:
    """The summary in at most so many bytes; rows that do not fit are counted in a last line.

    Empty if not even the verdict fits.
    """
    rows = [item for item in difference.worst_first if item.reasons]
    head = "".join(f"{line}\n" for line in _iter_head_lines(difference, bool(rows))).encode()
    tail = _format_rest(len(rows)).encode()  # no later count is longer
    if len(head) + len(tail) > max_bytes:
        return b""
    lines: list[bytes] = []
    room = max_bytes - len(head)
    for number, item in enumerate(rows, 1):
        line = f"{_format_row(item)}\n".encode()
        is_last = number == len(rows)
        if len(line) + (0 if is_last else len(tail)) > room:
            break
        lines.append(line)
        room -= len(line)
    rest = len(rows) - len(lines)
    return head + b"".join(lines) + (_format_rest(rest).encode() if rest else b"")


def escape_markdown(text: str) -> str:
    """A text of one line that Markdown and HTML show as it is, in a table too."""
    line = to_one_line(text)
    if len(line) > MAX_CELL_CHARACTERS:
        line = f"{line[: MAX_CELL_CHARACTERS // 2]}…{line[-MAX_CELL_CHARACTERS // 2 + 1 :]}"
    escaped = re.sub(r"[\\`*_{}\[\]<>#!|~&@$:\"']", lambda found: f"&#{ord(found[0])};", line)
    return re.sub(r"(?i)(?<=www)\.", "&#46;", escaped)  # GitHub makes links of such names


def _iter_head_lines(difference: RunDifference, has_rows: bool) -> Iterator[str]:
    yield f"### camcli diff: {format_verdict(difference)}"
    yield ""
    if statistics := format_statistics(difference):
        yield f"- {statistics}"
    yield from (f"- problem: {escape_markdown(text)}" for text in difference.problems)
    yield from (f"- setting {escape_markdown(text)}" for text in difference.settings_changes)
    if has_rows:
        yield from ("", *TABLE_HEAD)


def _format_row(item: MapDifference) -> str:
    measures = item.measures
    cells = [
        f"<code>{escape_markdown(item.image)}</code>",
        escape_markdown(item.method),
        "<br>".join(escape_markdown(reason.text) for reason in item.reasons),
        "" if measures.score_change is None else f"{measures.score_change:+.3g}",
        *("" if value is None else f"{value:.3f}" for value in (measures.pearson, measures.iou)),
    ]
    return f"| {' | '.join(cells)} |"


def _format_rest(count: int) -> str:
    return f"\nThe summary is too long: {count} more rows are left out; diff.jsonl has all.\n"
