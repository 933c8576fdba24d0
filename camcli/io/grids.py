"""Sheets of labelled pictures, and matrices of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from camcli.core.errors import to_one_line
from camcli.io.drawing import TEXT_COLOR, WHITE, find_palette
from camcli.io.fonts import find_font, shorten_text

LABEL_COLOR = (80, 80, 80)
CELL_PIXELS = 260  # longer side of a picture in a grid
GAP_PIXELS = 10
MAX_COLUMNS = 8
MAX_TITLE_PIXELS = 900
MATRIX_SIDE = 46  # pixels of one number


@dataclass(frozen=True, slots=True)
class GridCell:
    """A picture of a grid, with the label above it and a note below; `swatch` is its colour."""

    label: str
    image: Image.Image
    note: str = ""
    swatch: tuple[int, int, int] | None = None


def compute_cell_size(width: int, height: int, cell_pixels: int = CELL_PIXELS) -> tuple[int, int]:
    """The size of a picture in a grid; it keeps the aspect ratio, but is at least 24 pixels."""
    scale = cell_pixels / max(width, height)
    return max(24, round(width * scale)), max(24, round(height * scale))


def choose_column_count(cell_count: int, preferred: int = MAX_COLUMNS) -> int:
    """How many pictures one row gets, so that the last row has few empty places."""
    if cell_count <= MAX_COLUMNS:
        return cell_count
    choices: list[int] = [preferred, *range(MAX_COLUMNS, 3, -1)]
    return min(choices, key=lambda columns: (-cell_count) % columns)


def wrap_cells(cells: Sequence[GridCell], columns: int) -> list[list[GridCell]]:
    """Rows of so many cells; the last row may be shorter."""
    return [list(cells[i : i + columns]) for i in range(0, len(cells), columns)]


def draw_row_head(text: str, size: tuple[int, int]) -> GridCell:
    """A cell of text in place of a picture, one line for each part between dots."""
    head = Image.new("RGB", size, WHITE)
    pixels = max(12, round(max(size) / 18))
    font = find_font(pixels, text)
    lines = [shorten_text(part, font, size[0]) for part in text.split(" · ")]
    top = (size[1] - len(lines) * pixels * 3 // 2) / 2
    for n, line in enumerate(lines):
        ImageDraw.Draw(head).text((0, top + n * pixels * 1.5), line, TEXT_COLOR, font)
    return GridCell("", head)


@dataclass(frozen=True, slots=True)
class _GridLayout:
    """The sizes of a grid in pixels: of its text, and of a cell with its label and note."""

    text_size: int
    note_size: int
    picture_size: tuple[int, int]
    cell_width: int
    cell_height: int

    @classmethod
    def from_cells(cls, cells: Sequence[GridCell]) -> _GridLayout:
        width, height = (max(c.image.size[axis] for c in cells) for axis in (0, 1))
        text_size = max(12, round(max(width, height) / 18))
        note_size = max(10, text_size * 6 // 7)
        note_lines = max(len(cell.note.splitlines()) for cell in cells)
        return cls(
            text_size=text_size,
            note_size=note_size,
            picture_size=(width, height),
            cell_width=max(width, 9 * text_size) + GAP_PIXELS,
            cell_height=text_size + 8 + height + note_lines * (note_size + 6) + GAP_PIXELS,
        )


def draw_grid(title: str, rows: Sequence[Sequence[GridCell]]) -> Image.Image:
    """Draw rows of labelled pictures under a title, which may have several lines.

    A picture that is smaller than the others stands in the middle of its place.
    """
    layout = _GridLayout.from_cells([cell for row in rows for cell in row])
    size = layout.text_size * 5 // 4
    font, lines = find_font(size, title), title.splitlines()
    top = 2 * GAP_PIXELS + len(lines) * size * 5 // 4
    title_width = min(MAX_TITLE_PIXELS, max(map(font.getlength, lines), default=0))
    width = max(max(map(len, rows)) * layout.cell_width, int(title_width) + GAP_PIXELS)
    sheet = Image.new("RGB", (width + GAP_PIXELS, top + len(rows) * layout.cell_height), WHITE)
    draw = ImageDraw.Draw(sheet)
    for n, line in enumerate(lines):
        shown = shorten_text(line, font, width - GAP_PIXELS)
        draw.text((GAP_PIXELS, GAP_PIXELS + n * size * 5 // 4), shown, TEXT_COLOR, font)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            corner = (GAP_PIXELS + c * layout.cell_width, top + r * layout.cell_height)
            _draw_cell(sheet, cell, corner, layout)
    return sheet


def _draw_cell(
    sheet: Image.Image, cell: GridCell, corner: tuple[int, int], layout: _GridLayout
) -> None:
    """Draw the swatch and the label, the picture below them, then the lines of the note."""
    (x, y), size, draw = corner, layout.text_size, ImageDraw.Draw(sheet)
    width, indent = layout.cell_width - GAP_PIXELS, 0
    if cell.swatch is not None:
        draw.rectangle((x, y + 2, x + size - 2, y + size), cell.swatch)
        indent = size + 4
    font = find_font(size, cell.label)
    draw.text((x + indent, y), shorten_text(cell.label, font, width - indent), LABEL_COLOR, font)
    wide, high = layout.picture_size
    margins = ((wide - cell.image.width) // 2, (high - cell.image.height) // 2)
    sheet.paste(cell.image, (x + margins[0], y + size + 6 + margins[1]))
    y += size + 9 + high
    font = find_font(layout.note_size, cell.note)
    for line in cell.note.splitlines():
        draw.text((x, y), shorten_text(line, font, width), LABEL_COLOR, font)
        y += layout.note_size + 6


def draw_matrix(
    title: str,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    values: NDArray[np.float64],
) -> Image.Image:
    """Draw a matrix of numbers in [-1, 1], coloured by value; NaN stays empty."""
    font = find_font(13, "".join([*row_labels, *column_labels]))
    longest = (
        max(int(font.getlength(to_one_line(label))) for label in labels)
        for labels in (row_labels, column_labels)
    )
    left, above = (24 + min(420, length) for length in longest)
    top = 50 + above
    right = left + MATRIX_SIDE * len(column_labels) + GAP_PIXELS
    bottom = top + MATRIX_SIDE * len(row_labels) + GAP_PIXELS
    sheet = Image.new("RGB", (max(right, 320), bottom), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PIXELS, 10), title, TEXT_COLOR, find_font(18, title))
    for n, label in enumerate(row_labels):
        text = shorten_text(label, font, left - 16)
        middle = (left - 8, top + MATRIX_SIDE * (n + 0.5))
        draw.text(middle, text, LABEL_COLOR, font, anchor="rm")
    for n, label in enumerate(column_labels):
        upright = Image.new("RGB", (above, MATRIX_SIDE), WHITE)
        text, place = shorten_text(label, font, above - 16), (8, MATRIX_SIDE / 2)
        ImageDraw.Draw(upright).text(place, text, LABEL_COLOR, font, anchor="lm")
        sheet.paste(upright.rotate(90, expand=True), (left + MATRIX_SIDE * n, top - above))
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            corner = (left + MATRIX_SIDE * column, top + MATRIX_SIDE * row)
            _draw_number(draw, corner, round(float(value), 2) + 0, font)
    return sheet


def _draw_number(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    value: float,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Draw a square in the colour of a number in [-1, 1], with the number on it."""
    x, y = corner
    # Use the middle two thirds of the colours: black text is legible on all of them.
    color = tuple(find_palette("RdBu_r")[round(127.5 + 85 * value)].tolist())
    draw.rectangle((x, y, x + MATRIX_SIDE - 2, y + MATRIX_SIDE - 2), color)
    middle = (x + MATRIX_SIDE / 2 - 1, y + MATRIX_SIDE / 2 - 1)
    draw.text(middle, f"{value:.2f}", TEXT_COLOR, font, anchor="mm")
