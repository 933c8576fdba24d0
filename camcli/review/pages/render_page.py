"""A report page as one HTML file that needs no network and works from a disk."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from camcli.core.errors import to_one_line
from camcli.review.pages.page_data import ReportPage, page_to_json

TABLE_ROWS = 200  # of the table for browsers without scripts


def render_page(page: ReportPage) -> bytes:
    """The HTML of a page. Names in it are text only: they cannot become tags or scripts."""
    data = page_to_json(page) | {"colormaps": _load_colormaps(page.colormap)}
    text = Template(_read("report.html")).substitute(
        title=escape(to_one_line(page.title)),
        style=_read("report.css"),
        script=_read("report.js") + _read("report_start.js"),
        table=_create_plain_table(page),
        data=_to_script_json(data),
    )
    return text.encode()


def _read(name: str) -> str:
    return (files("camcli.review.pages") / "assets" / name).read_text(encoding="utf-8")


def _load_colormaps(first: str) -> dict[str, Any]:
    """33 colours of each colour map, and the run's own one first."""
    colormaps: dict[str, Any] = json.loads(_read("colormaps.json"))
    return {first: colormaps[first], **colormaps} if first in colormaps else colormaps


def _to_script_json(data: dict[str, Any]) -> str:
    """JSON in ASCII that cannot end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _create_plain_table(page: ReportPage) -> str:
    """The first items as a table, for browsers without scripts."""
    head = ("image", "result", *page.value_names)
    rows = [
        (item.name, item.error or item.caption, *map(_format_value, item.values))
        for item in page.items[:TABLE_ROWS]
    ]
    shown = f"The first {len(rows)} of {len(page.items)} results. Scripts show the pictures."
    lines = [_create_row("th", head), *(_create_row("td", row) for row in rows)]
    return f"<p>{shown}</p><table>{''.join(lines)}</table>"


def _create_row(tag: str, cells: tuple[str, ...]) -> str:
    inner = "".join(f"<{tag}>{escape(to_one_line(cell))}</{tag}>" for cell in cells)
    return f"<tr>{inner}</tr>"


def _format_value(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
