"""Where the pictures, heads and labels of a sheet lie, in whole pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from PIL import Image

from camcli.io.bar_scales import BarScale
from camcli.io.sheet_text import fit_label, fit_lines, fit_scored_label

HEAD_POINTS, LABEL_POINTS, LINE_SPACING = 8.0, 7.0, 1.25
MARGIN, GAP = 0.03, 0.035  # inches
BAR_SPACE = 0.36
LABEL_SHARE, MIN_LABEL_WIDTH = 0.13, 0.62  # of the sheet's width; inches
MIN_CELL_WIDTH = 0.42
MAX_HEAD_LINES, MAX_LABEL_LINES, MAX_CAPTION_LINES = 3, 4, 2


@dataclass(frozen=True, slots=True)
class SheetCell:
    """A picture of a sheet, the texts above it, and whether it is framed in red.

    `score` follows the last text, and is never cut. `colormap` has the colours of the map, if a
    colour bar can explain them.
    """

    image: Image.Image
    caption: tuple[str, ...] = ()
    score: str = ""
    is_framed: bool = False
    colormap: str | None = None


@dataclass(frozen=True, slots=True)
class SheetRow:
    """The lines at the left of a row, and its pictures; None leaves a place empty."""

    label: tuple[str, ...]
    cells: tuple[SheetCell | None, ...]


@dataclass(frozen=True, slots=True)
class SheetStyle:
    """The size of a sheet in inches, its pixels per inch, and how it is laid out.

    `wrap` is the largest number of pictures in a line; None lets them be as small as
    `min_cell_width`. They are as wide as if a line had `min_columns` at least. With `has_bar` a
    colour bar of `scale` stands at the right, unless the maps of a page differ in their colours.
    """

    width: float = 7.16
    max_height: float = 9.5
    dpi: int = 300
    is_transposed: bool = False
    wrap: int | None = None
    min_columns: int = 1
    min_cell_width: float = MIN_CELL_WIDTH
    has_bar: bool = True
    scale: BarScale = field(default_factory=BarScale)

    def to_pixels(self, inches: float) -> int:
        """A length in whole pixels."""
        return round(inches * self.dpi)

    def compute_line_height(self, points: float) -> int:
        """The height of a line of text in pixels."""
        return self.to_pixels(points * LINE_SPACING / 72)

    @property
    def label_width(self) -> float:
        """The width of the labels at the left, in inches."""
        return max(MIN_LABEL_WIDTH, LABEL_SHARE * self.width)

    @property
    def cells_width(self) -> float:
        """The width that is left for pictures, in inches."""
        bar = BAR_SPACE if self.has_bar else 0
        return self.width - 2 * MARGIN - self.label_width - bar

    @property
    def max_columns(self) -> int:
        """The number of pictures in a line."""
        fitting = max(1, int((self.cells_width + GAP) / (self.min_cell_width + GAP)))
        return self.wrap or fitting

    def compute_line_length(self, count: int) -> int:
        """The number of pictures in a line when so many are divided into equal lines."""
        if count <= self.max_columns:
            return count
        return self.wrap or math.ceil(count / math.ceil(count / self.max_columns))

    def compute_cell_pixels(self, column_count: int) -> int:
        """The longest side of a picture when a line has so many."""
        count = max(column_count, self.compute_line_length(max(column_count, self.min_columns)))
        return max(16, self.to_pixels((self.cells_width + GAP) / count - GAP))


def fit_cell(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The size of a picture (width, height) in a square cell; it keeps the aspect ratio."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@dataclass(frozen=True, slots=True)
class SheetGrid:
    """The pictures as they lie on the page, with the lines above columns and beside rows."""

    tops: Sequence[tuple[str, ...]]
    lines: Sequence[SheetRow]

    @property
    def column_count(self) -> int:
        """The number of pictures in the longest line."""
        return max(len(line.cells) for line in self.lines)

    @property
    def colormap(self) -> str | None:
        """The colours of all maps; None if they differ."""
        cells = [cell for line in self.lines for cell in line.cells if cell]
        found = {cell.colormap for cell in cells if cell.colormap}
        return found.pop() if len(found) == 1 else None


def arrange_grid(heads: Sequence[str], rows: Sequence[SheetRow], style: SheetStyle) -> SheetGrid:
    """Place the rows as lines, as columns when transposed, or wrapped to lines of their own."""
    count = max(len(row.cells) for row in rows)
    if style.is_transposed:
        columns = zip_longest(*(row.cells for row in rows))
        labels = [(head,) for head in (*heads, *[""] * (count - len(heads)))]
        lines = [SheetRow(label, cells) for label, cells in zip(labels, columns, strict=True)]
        return SheetGrid([row.label for row in rows], lines)
    if count <= style.max_columns:
        return SheetGrid([(head,) for head in heads], rows)
    length = style.compute_line_length(count)
    return SheetGrid((), [line for row in rows for line in _wrap_row(heads, row, length)])


def _wrap_row(heads: Sequence[str], row: SheetRow, count: int) -> Iterator[SheetRow]:
    """Cut one row into lines; each picture then carries the head of its column."""
    cells = [
        cell and replace(cell, caption=(head or "", *cell.caption))
        for head, cell in zip_longest(heads, row.cells)
    ]
    for start in range(0, len(cells), count):
        yield SheetRow(row.label if start == 0 else (), tuple(cells[start : start + count]))


def fits_on_page(heads: Sequence[str], rows: Sequence[SheetRow], style: SheetStyle) -> bool:
    """Whether the rows fit on one page."""
    if style.is_transposed:
        return len(rows) <= style.compute_line_length(max(len(rows), style.min_columns))
    layout = SheetLayout.from_grid(arrange_grid(heads, rows, style), style)
    return layout.size[1] <= style.to_pixels(style.max_height)


@dataclass(frozen=True, slots=True)
class SheetLayout:
    """The places of all cells, in pixels from the upper left corner of the page.

    `side` is the width of a column. `heads` has the lines above each column. The pictures of a line
    start at its entry of `starts` and take its entry of `heights`; `captions` lie above them.
    """

    grid: SheetGrid
    style: SheetStyle
    side: int
    heads: tuple[list[str], ...]
    starts: tuple[int, ...]
    heights: tuple[int, ...]
    captions: tuple[tuple[list[str], ...], ...]

    @classmethod
    def from_grid(cls, grid: SheetGrid, style: SheetStyle) -> SheetLayout:
        """Compute the places for one page."""
        side = style.compute_cell_pixels(grid.column_count)
        heights = tuple(_compute_line_pixels(line, side) for line in grid.lines)
        room = MAX_LABEL_LINES if style.is_transposed else MAX_HEAD_LINES
        heads = tuple(fit_label(top, HEAD_POINTS, style.dpi, side, room) for top in grid.tops)
        head_lines = max(map(len, heads), default=0)
        y = style.to_pixels(MARGIN) + style.compute_line_height(HEAD_POINTS) * head_lines
        starts = []
        texts = tuple(_fit_captions(line, style.dpi, side) for line in grid.lines)
        for captions, height in zip(texts, heights, strict=True):
            starts.append(y + style.compute_line_height(LABEL_POINTS) * max(map(len, captions)))
            y = starts[-1] + height + style.to_pixels(GAP)
        return cls(grid, style, side, heads, tuple(starts), heights, texts)

    @property
    def size(self) -> tuple[int, int]:
        """The width and height of the page."""
        end = self.starts[-1] + self.heights[-1] + self.style.to_pixels(MARGIN)
        return self.style.to_pixels(self.style.width), end

    @property
    def left(self) -> int:
        """The left edge of the first column."""
        return self.style.to_pixels(MARGIN + self.style.label_width)

    def get_column_left(self, column: int) -> int:
        """The left edge of a column; one more than there are gives the right edge of all."""
        return self.left + column * (self.side + self.style.to_pixels(GAP))


def _fit_captions(line: SheetRow, dpi: int, side: int) -> tuple[list[str], ...]:
    """The lines above each picture."""
    return tuple(_fit_caption(cell, dpi, side) if cell else [] for cell in line.cells)


def _fit_caption(cell: SheetCell, dpi: int, side: int) -> list[str]:
    texts = [text for text in cell.caption if text]
    lines: list[str] = []
    for text in texts[:-1]:
        lines += fit_lines(text, LABEL_POINTS, dpi, side, MAX_CAPTION_LINES)
    if texts:
        last, score = texts[-1], cell.score
        lines += fit_scored_label(last, score, LABEL_POINTS, dpi, side, MAX_CAPTION_LINES)
    return lines


def _compute_line_pixels(line: SheetRow, side: int) -> int:
    return max((fit_cell(cell.image.size, side)[1] for cell in line.cells if cell), default=side)
