"""Results as HTML for notebooks: nothing is fetched, and every name is text."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from camcli.core.errors import to_one_line
from camcli.core.plurals import format_count
from camcli.core.types import STATUS_TEXTS
from camcli.io.files import is_below_folder

if TYPE_CHECKING:
    from camcli.review.result_lines import StoredExplanation, StoredResult
    from camcli.review.stored_run import StoredRun

MAX_PICTURES = 12  # a notebook keeps them all in its file
MAX_PICTURE_BYTES = 400_000
MAX_ROWS = 12  # results of a run
MAX_PROBLEMS = 5
MAX_NAME_CHARACTERS = 200
# The best to look at first.
SHOWN_KINDS = ("overlay", "grid", "cutout", "heatmap", "transparent", "mask", "map")
SIGNATURES = {rb"\xff\xd8\xff": "jpeg", rb"\x89PNG\r\n\x1a\n": "png", rb"RIFF....WEBP": "webp"}
PICTURE_STYLE = "max-width:22em;max-height:18em"


class CardPart(NamedTuple):
    """What is shown of one class: lines of text, and a picture where there is one."""

    lines: Sequence[str]
    picture: bytes = b""


def create_run_html(run: StoredRun) -> str:
    """A run: its summary, and its first results with their pictures."""
    head, *problems = run.summary().splitlines()
    budget = _PictureBudget()
    results = [_format_result(result, budget) for result in run.results[:MAX_ROWS]]
    notes = list(problems[:MAX_PROBLEMS])
    if len(run) > MAX_ROWS:
        notes.append(f"the first {MAX_ROWS} results; filter() selects, to_dataframe() has all")
    paragraphs = [f"<p>{_escape(note)}</p>" for note in notes]
    return _join_block([f"<p><b>{_escape(head)}</b></p>", *paragraphs, *results])


def create_result_html(result: StoredResult) -> str:
    """What a method found in one image."""
    return _join_block([_format_result(result, _PictureBudget())])


def create_card_html(title: str, parts: Iterable[CardPart]) -> str:
    """A title, and beside each other the parts that it has."""
    return _join_block([_format_card(title, parts)])


class _PictureBudget:
    """How many pictures may still be shown."""

    def __init__(self) -> None:
        self.left = MAX_PICTURES

    def create_part(self, result: StoredResult, shown: StoredExplanation) -> CardPart:
        """A class with its best picture; with the name of the file if that cannot be shown."""
        lines = describe_class(shown.title, shown.map_status, shown.is_predicted, len(shown.boxes))
        names = [shown.files[kind] for kind in SHOWN_KINDS if kind in shown.files]
        if not names or result.folder is None:
            return CardPart(lines)
        found = filter(None, (_read_small_picture(result.folder, name) for name in names))
        picture = next(found, b"") if self.left else b""
        self.left -= bool(picture)
        return CardPart(lines, picture) if picture else CardPart([*lines, names[0]])


def _format_result(result: StoredResult, budget: _PictureBudget) -> str:
    title = f"{result.image} · {result.method}"
    if result.layers:
        title += f" · {', '.join(result.layers)}"
    shown = result.explanations[:MAX_PICTURES]
    parts = [budget.create_part(result, each) for each in shown]
    hidden_count = len(result.explanations) - len(shown)
    if hidden_count:
        parts.append(CardPart([f"{hidden_count} more classes"]))
    return _format_card(title, parts)


def describe_class(
    title: str, map_status: str, is_predicted: bool | None, box_count: int
) -> list[str]:
    """The lines about one class: its score, what its map lacks, and the number of its boxes."""
    if map_status in STATUS_TEXTS:
        map_text = f"no map: {STATUS_TEXTS[map_status].caption}"
    elif map_status != "ok":
        map_text = f"no map: {map_status}"
    else:
        map_text = format_count(box_count, "box")
    return [*filter(None, (title, "predicted" if is_predicted else "", map_text))]


def _read_small_picture(folder: Path, name: str) -> bytes:
    """The content of a small picture below the folder; empty for any other file."""
    try:
        path = folder / name
        if not is_below_folder(path, folder) or not path.is_file():  # a link may lead anywhere
            return b""
        if path.stat().st_size > MAX_PICTURE_BYTES:
            return b""
        content = path.read_bytes()
    except (OSError, ValueError):
        return b""
    return content if _find_picture_type(content) else b""


def _find_picture_type(content: bytes) -> str:
    """The kind of a picture by its first bytes; empty for any other file, such as SVG.

    The name of a file may lie, and SVG can hold programs.
    """
    kinds = (kind for pattern, kind in SIGNATURES.items() if re.match(pattern, content, re.DOTALL))
    return next(kinds, "")


def _format_card(title: str, parts: Iterable[CardPart]) -> str:
    cells = "".join(
        f'<div style="max-width:22em">{_format_picture(part.picture, title)}'
        f"{'<br>'.join(map(_escape, part.lines))}</div>"
        for part in parts
    )
    row = f'<div style="display:flex;flex-wrap:wrap;gap:1em">{cells}</div>'
    return f'<div style="margin:.5em 0"><div><b>{_escape(title)}</b></div>{row}</div>'


def _format_picture(content: bytes, title: str) -> str:
    if not content:
        return ""
    data = base64.b64encode(content).decode()
    source = f"data:image/{_find_picture_type(content)};base64,{data}"
    return f'<img src="{source}" alt="{_escape(title)}" style="{PICTURE_STYLE}"><br>'


def _join_block(parts: Iterable[str]) -> str:
    return f"<div>{''.join(parts)}</div>"


def _escape(text: str) -> str:
    """A text without control characters and marks of direction, safe in HTML."""
    line = to_one_line(text)
    if len(line) > MAX_NAME_CHARACTERS:
        line = f"{line[:MAX_NAME_CHARACTERS]}…"
    return html.escape(line)
