"""Divide the rows of a figure into pages, and draw each page as soon as it is full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from matplotlib.figure import Figure

from camcli.io.sheet_layout import SheetCell, SheetRow, SheetStyle, fits_on_page
from camcli.io.sheets import draw_sheet
from camcli.runs.figure_run import FigureRow
from camcli.runs.figure_table import FigurePlan

UNKNOWN_CLASS_COUNT = 8  # classes to leave room for where their number differs between images


def has_color_bar(plan: FigurePlan, colormap: str | None) -> bool:
    """Whether one colour bar can explain all maps: pixel-level maps have own colours by default."""
    families = {request.is_pixel_level for request in plan.colored_requests}
    return bool(families) and (colormap is not None or len(families) == 1)


def estimate_column_count(plan: FigurePlan) -> int:
    """The number of pictures in a row, before any class is known."""
    return sum(_estimate_class_count(column.target) for column in plan.columns)


def _estimate_class_count(target: str | None) -> int:
    kind, _, number = (target or "predicted").partition(":")
    if kind == "top" and number.isdigit():
        return int(number)
    return UNKNOWN_CLASS_COUNT if kind in ("all", "above") else 1


def iter_pages(plan: FigurePlan, rows: Iterable[FigureRow], style: SheetStyle) -> Iterator[Figure]:
    """Draw the rows page by page; only the rows of one page are kept."""
    waiting: list[FigureRow] = []
    for row in rows:
        if waiting and not fits_on_page(*_flatten_rows(plan, [*waiting, row]), style):
            yield draw_sheet(*_flatten_rows(plan, waiting), style)
            waiting = []
        waiting.append(row)
    if waiting:
        yield draw_sheet(*_flatten_rows(plan, waiting), style)


def _flatten_rows(plan: FigurePlan, rows: Sequence[FigureRow]) -> tuple[list[str], list[SheetRow]]:
    """The heads, and rows whose groups have the same number of pictures in every row."""
    widths = [max(map(len, groups)) for groups in zip(*(row.groups for row in rows), strict=True)]
    repeated = [c.head for c, width in zip(plan.columns, widths, strict=True) for _ in range(width)]
    flat = [SheetRow(row.label, tuple(chain(*map(_pad_group, row.groups, widths)))) for row in rows]
    return repeated, flat


def _pad_group(group: Sequence[SheetCell | None], width: int) -> list[SheetCell | None]:
    return [*group, *[None] * (width - len(group))]
