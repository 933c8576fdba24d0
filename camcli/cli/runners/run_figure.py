"""Run `camcli figure`: draw the sheet page by page, and print what is missing in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from camcli.cli.console import (
    ProgressReporter,
    print_data,
    print_error,
    print_info,
    print_notice,
    show_progress,
)
from camcli.core.types import Failure, ImageSource
from camcli.io.files import format_page_path, write_file
from camcli.io.sheet_layout import SheetStyle
from camcli.io.sheet_text import lacks_glyphs
from camcli.io.sheets import encode_sheets
from camcli.runs.figure_pages import estimate_column_count, iter_pages
from camcli.runs.figure_pictures import FigureDrawing
from camcli.runs.figure_run import FigureRow, iter_figure_images
from camcli.runs.figure_table import FigurePlan

MISSING_FONT = (
    "no installed font has all characters of the labels; install one such as Noto Sans CJK"
    " (Debian, Ubuntu: fonts-noto-cjk)"
)
CAPTION_WIDTH = 0.55  # inches; a class and its score fit above a picture of this width


@dataclass(frozen=True, slots=True)
class FigureTask:
    """What to draw, of which images, and the file to write.

    `drawing` has the style of maps and pictures.
    """

    plan: FigurePlan
    sources: Sequence[ImageSource | Failure]
    style: SheetStyle
    output: Path
    image_format: str
    drawing: FigureDrawing


@dataclass(slots=True)
class _FigureCounts:
    """What was drawn so far."""

    images: int = 0
    has_squares: bool = False
    problems: int = 0


def run_figure(task: FigureTask) -> int:
    """Draw all images, write the pages, and print. Returns the exit status."""
    plan, count = task.plan, len(task.sources) * len(task.plan.row_heads)
    columns = count if task.style.is_transposed else estimate_column_count(plan)
    cell_width = CAPTION_WIDTH if plan.has_captions else task.style.min_cell_width
    style = replace(task.style, min_columns=columns, min_cell_width=cell_width)
    counts, files = _FigureCounts(), 0
    with show_progress("drawing", len(task.sources), quiet=False) as bar:
        pages = iter_pages(plan, _iter_rows(task, style, counts, bar), style)
        for content in encode_sheets(pages, task.image_format):
            files += 1
            path = format_page_path(task.output, files)
            write_file(path, content)
            print_data(str(path))
    if counts.has_squares or any(lacks_glyphs(column.head) for column in plan.columns):
        print_notice(MISSING_FONT)
    missing = f", {counts.problems} missing" if counts.problems else ""
    print_info(f"{counts.images} image{'s' * (counts.images != 1)}{missing}")
    return int(bool(counts.problems or plan.left_out))


def _iter_rows(
    task: FigureTask, style: SheetStyle, counts: _FigureCounts, bar: ProgressReporter
) -> Iterator[FigureRow]:
    drawing = replace(task.drawing, side=style.compute_cell_pixels(1))
    for image in iter_figure_images(task.plan, task.sources, drawing):
        counts.images += 1
        counts.problems += len(image.problems)
        for problem in image.problems:
            print_error(f"{image.source.path}: {problem}")
        bar.advance()
        for row in image.rows:
            counts.has_squares |= any(map(lacks_glyphs, row.label))
            yield row
