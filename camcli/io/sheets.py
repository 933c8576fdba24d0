"""Lay out many pictures as one sheet for print: heads, labels, frames and a colour bar.

Every edge lies on a whole pixel, so that a picture drawn at the size of its cell stays as it is.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from camcli.io.bar_scales import SIGNED_SCALE, BarScale
from camcli.io.map_looks import SIGNED_COLORMAP
from camcli.io.sheet_layout import (
    GAP,
    HEAD_POINTS,
    LABEL_POINTS,
    MARGIN,
    MAX_LABEL_LINES,
    SheetCell,
    SheetLayout,
    SheetRow,
    SheetStyle,
    arrange_grid,
    fit_cell,
)
from camcli.io.sheet_text import (
    fit_label,
    ignore_missing_glyphs,
    list_fonts,
    measure_text,
)

BAR_WIDTH, MAX_BAR_HEIGHT = 0.08, 3.0  # inches
FRAME_COLOR, FRAME_POINTS = "#e00000", 1.6
SAVE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "png": {"metadata": {"Software": None}},
    "jpg": {"pil_kwargs": {"quality": 92, "subsampling": 0}},
    "pdf": {},
    "svg": {"metadata": {"Date": None}},
}
# Text stays text: TrueType fonts inside a PDF, and plain text in an SVG.
TEXT_SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "camcli",
}


def draw_sheet(heads: Sequence[str], rows: Sequence[SheetRow], style: SheetStyle) -> Figure:
    """Draw one page: the rows with their labels, the heads once above, the colour bar at right."""
    layout = SheetLayout.from_grid(arrange_grid(heads, rows, style), style)
    width, height = layout.size
    figure = Figure((width / style.dpi, height / style.dpi), dpi=style.dpi)
    page = _Page(figure, layout)
    for column in range(len(layout.heads)):
        page.write_head(column)
    for number, line in enumerate(layout.grid.lines):
        page.write_label(number, line.label)
        for column, cell in enumerate(line.cells):
            if cell:
                page.place_cell(number, column, cell)
    colormap = layout.grid.colormap
    if style.has_bar and colormap:
        scale = SIGNED_SCALE if colormap == SIGNED_COLORMAP else style.scale
        page.draw_color_bar(colormap, scale)
    return figure


@dataclass(frozen=True, slots=True)
class _Page:
    """A figure, and the layout by which it is filled."""

    figure: Figure
    layout: SheetLayout

    def write_head(self, column: int) -> None:
        """The lines above a column, right above its first picture and the caption of that."""
        layout, lines = self.layout, self.layout.heads[column]
        x = layout.get_column_left(column) + layout.side / 2
        first = layout.captions[0][column] if column < len(layout.captions[0]) else []
        captions = len(first) * layout.style.compute_line_height(LABEL_POINTS)
        self._write_lines(
            x, layout.starts[0] - captions, lines, HEAD_POINTS, "center", from_end=1.0
        )

    def write_label(self, number: int, texts: Sequence[str]) -> None:
        """The lines beside a row, at the middle of its pictures."""
        layout, style = self.layout, self.layout.style
        room = layout.heights[number] // style.compute_line_height(LABEL_POINTS)
        lines = fit_label(
            texts,
            LABEL_POINTS,
            style.dpi,
            layout.left - style.to_pixels(MARGIN + 2 * GAP),
            max(1, min(MAX_LABEL_LINES, room)),
        )
        x = layout.left - style.to_pixels(2 * GAP)
        middle = layout.starts[number] + layout.heights[number] / 2
        self._write_lines(x, middle, lines, LABEL_POINTS, "right", from_end=0.5)

    def place_cell(self, number: int, column: int, cell: SheetCell) -> None:
        """A picture in the middle of its place, its caption, and its frame."""
        layout = self.layout
        width, height = fit_cell(cell.image.size, layout.side)
        left = layout.get_column_left(column)
        x = left + (layout.side - width) // 2
        y = layout.starts[number] + (layout.heights[number] - height) // 2
        place = self._to_figure(x, y, width, height)
        axes = self.figure.add_axes(place)
        axes.imshow(cell.image, interpolation="none", aspect="auto")
        axes.set_axis_off()
        if cell.is_framed:
            self._frame(place)
        lines, top = layout.captions[number][column], layout.starts[number]
        self._write_lines(left + layout.side / 2, top, lines, LABEL_POINTS, "center", from_end=1.0)

    def draw_color_bar(self, colormap: str, scale: BarScale) -> None:
        """The colours from low to high, and what they mean, right of the pictures."""
        layout, style = self.layout, self.layout.style
        first, end = layout.starts[0], layout.starts[-1] + layout.heights[-1]
        high = min(end - first, style.to_pixels(MAX_BAR_HEIGHT))
        x, y = layout.get_column_left(layout.grid.column_count), (first + end - high) // 2
        wide, step = style.to_pixels(BAR_WIDTH), style.compute_line_height(LABEL_POINTS)
        axes = self.figure.add_axes(self._to_figure(x, y, wide, high))
        levels = [[level / 255] for level in range(255, -1, -1)]
        axes.imshow(levels, cmap=colormap, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        right = x + wide + style.to_pixels(GAP)
        self._write_lines(right, y, [scale.high], LABEL_POINTS, "left", from_end=0.0)
        self._write_lines(right, y + high, [scale.low], LABEL_POINTS, "left", from_end=1.0)
        text = next(
            label
            for label in scale.labels
            if not label or measure_text(label, LABEL_POINTS, style.dpi) <= high - 2 * step
        )
        self._write(right + step / 3, y + high / 2, text, LABEL_POINTS, "center", rotation=90)

    def _frame(self, place: tuple[float, float, float, float]) -> None:
        left, bottom, width, height = place
        self.figure.add_artist(
            Rectangle(
                (left, bottom),
                width,
                height,
                fill=False,
                edgecolor=FRAME_COLOR,
                linewidth=FRAME_POINTS,
                transform=self.figure.transFigure,
                zorder=3,
            )
        )

    def _to_figure(
        self, x: float, y: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """A rectangle in pixels from the upper left corner, as shares of the figure."""
        across, down = self.layout.size
        return x / across, 1 - (y + height) / down, width / across, height / down

    def _write_lines(
        self,
        x: float,
        y: float,
        lines: Sequence[str],
        points: float,
        align: str,
        *,
        from_end: float,
    ) -> None:
        """Write lines that start at y (`from_end` 0), have their middle there, or end there (1)."""
        step = self.layout.style.compute_line_height(points)
        for number, line in enumerate(lines):
            self._write(x, y + step * (number + 0.5 - len(lines) * from_end), line, points, align)

    def _write(
        self, x: float, y: float, text: str, points: float, align: str, *, rotation: int = 0
    ) -> None:
        left, bottom, _, _ = self._to_figure(x, y, 0, 0)
        self.figure.text(
            left,
            bottom,
            text,
            fontsize=points,
            family=list_fonts(),
            horizontalalignment=align,
            verticalalignment="center" if rotation else "center_baseline",
            rotation=rotation,
            parse_math=False,
        )


def encode_sheets(pages: Iterable[Figure], image_format: str) -> Iterator[bytes]:
    """Encode pages: one file for each, but one PDF for all of them.

    `image_format` is png, jpg, pdf or svg.
    """
    if image_format == "pdf":
        yield _encode_pdf(pages)
        return
    for page in pages:
        buffer = io.BytesIO()
        with _use_text_settings():
            page.savefig(buffer, format=image_format, **SAVE_OPTIONS[image_format])
        yield buffer.getvalue()


def _encode_pdf(pages: Iterable[Figure]) -> bytes:
    buffer = io.BytesIO()
    document = PdfPages(buffer, metadata={"CreationDate": None, "Creator": "camcli"})
    for page in pages:
        with _use_text_settings():
            document.savefig(page)  # type: ignore[no-untyped-call]
    with _use_text_settings():  # the fonts are written last
        document.close()  # type: ignore[no-untyped-call]
    return buffer.getvalue()


@contextmanager
def _use_text_settings() -> Iterator[None]:
    with matplotlib.rc_context(TEXT_SETTINGS), ignore_missing_glyphs():
        yield
