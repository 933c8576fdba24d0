"""Sheets: where pictures lie, what PDF and SVG hold, and how text is fitted."""

from __future__ import annotations

import base64
import io
import re
import zlib
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image

from camcli.io import sheet_text
from camcli.io.bar_scales import create_bar_scale
from camcli.io.sheet_layout import (
    SheetCell,
    SheetLayout,
    SheetRow,
    SheetStyle,
    arrange_grid,
    fit_cell,
    fits_on_page,
)
from camcli.io.sheet_text import fit_label, fit_lines, fit_scored_label, lacks_glyphs, measure_text
from camcli.io.sheets import draw_sheet, encode_sheets
from camcli.io.value_ranges import ValueRange
from camcli.io.writers import DrawingStyle

STYLE = SheetStyle(width=5, dpi=100)


def noise_cell(seed: int, size: tuple[int, int], caption: str = "") -> SheetCell:
    """A picture whose neighbouring pixels differ, so that any resampling would show."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return SheetCell(
        Image.fromarray(values), (caption,) if caption else (), colormap=("turbo", None)[seed % 2]
    )


def encode(heads: list[str], rows: list[SheetRow], style: SheetStyle, kind: str) -> bytes:
    (content,) = encode_sheets([draw_sheet(heads, rows, style)], kind)
    return content


def create_rows(style: SheetStyle, columns: int = 3, lines: int = 2) -> list[SheetRow]:
    size = fit_cell((4, 3), style.compute_cell_pixels(columns))
    return [
        SheetRow(
            (f"class {r}", "0.50"), tuple(noise_cell(10 * r + c, size) for c in range(columns))
        )
        for r in range(lines)
    ]


@pytest.mark.parametrize("transposed", [False, True])
def test_each_picture_lies_in_its_place_pixel_by_pixel(transposed: bool) -> None:
    style = SheetStyle(width=5, dpi=100, is_transposed=transposed, min_columns=3)
    rows = create_rows(style)
    sheet = np.asarray(Image.open(io.BytesIO(encode(["a", "b", "c"], rows, style, "png"))))
    layout = SheetLayout.from_grid(arrange_grid(["a", "b", "c"], rows, style), style)
    assert sheet.shape[1::-1] == layout.size
    for r, row in enumerate(rows):
        for c, cell in enumerate(row.cells):
            assert cell is not None
            line, column = (c, r) if transposed else (r, c)
            x, y = layout.get_column_left(column), layout.starts[line]
            wide, high = cell.image.size
            found = sheet[y : y + high, x : x + wide, :3]
            assert (found == np.asarray(cell.image)).all(), (r, c)


def test_a_pdf_has_the_width_the_text_and_truetype_fonts() -> None:
    rows = create_rows(STYLE)
    (content,) = encode_sheets([draw_sheet(["stage 1"], rows, STYLE)] * 2, "pdf")
    boxes = re.findall(rb"/MediaBox \[([^\]]*)\]", content)
    assert len(boxes) == 2
    assert [float(edge) for edge in boxes[0].split()][2] == pytest.approx(5 * 72, abs=0.5)
    assert b"/FontFile2" in content  # TrueType, embedded
    assert b"/Type3" not in content
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
    pages = [zlib.decompress(part) for part in streams if part[:1] == b"\x78"]
    assert any(re.search(rb" Tf\b.*\bT[jJ]\b", page, re.DOTALL) for page in pages)  # text is text


def test_an_svg_is_xml_with_text_and_pictures() -> None:
    rows = create_rows(STYLE)
    root = ElementTree.fromstring(encode(["a$b$", "<&>", "图"], rows, STYLE, "svg"))
    assert root.get("width") == "360pt"
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a$b$", "<&>", "图", "class 1"} <= {text.strip() for text in texts}
    links = [n.get("{http://www.w3.org/1999/xlink}href") or "" for n in root.iter()]
    pictures = [link for link in links if link.startswith("data:image/png;base64,")]
    assert len(pictures) == 6 + 1  # and the colour bar
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2])))
    cell = rows[0].cells[0]
    assert cell is not None
    assert first.size == cell.image.size


def test_the_same_sheet_is_the_same_file() -> None:
    for kind in ("png", "pdf", "svg", "jpg"):
        first, second = (encode(["a"], create_rows(STYLE), STYLE, kind) for _ in range(2))
        assert first == second, kind


def count_pictures(colormaps: list[str | None], **fields: Any) -> int:
    """The axes of a page: its pictures, and the colour bar."""
    grey = Image.new("RGB", (60, 60), (90, 90, 90))
    cells = tuple(SheetCell(grey, colormap=colormap) for colormap in colormaps)
    return len(draw_sheet([], [SheetRow((), cells)], replace(STYLE, **fields)).axes)


def test_the_colour_bar_is_that_of_all_maps_or_none() -> None:
    assert count_pictures([None, "turbo", "turbo"]) == 3 + 1
    assert count_pictures([None, "turbo", "gray"]) == 3
    assert count_pictures([None]) == 1
    assert count_pictures(["turbo"], has_bar=False) == 1
    bar = draw_sheet(
        [], [SheetRow((), (SheetCell(Image.new("RGB", (9, 9)), colormap="gray"),))], STYLE
    )
    assert bar.axes[1].images[0].get_cmap().name == "gray"


@pytest.mark.parametrize(
    ("fields", "texts"),
    [
        ({}, {"0", "1", "min to max"}),
        ({"clip": 99.0}, {"0", "1", "min to p99"}),
        ({"value_range": ValueRange((-0.5, 3.25))}, {"-0.5", "3.25", ""}),
    ],
)
def test_the_bar_says_what_its_ends_mean(fields: dict[str, Any], texts: set[str]) -> None:
    style = replace(STYLE, scale=create_bar_scale(DrawingStyle((9, 9), **fields)))
    cell = SheetCell(Image.new("RGB", (90, 90)), colormap="turbo")
    page = draw_sheet([], [SheetRow((), (cell,) * 4)], style)
    assert {text.get_text() for text in page.texts} == texts


def test_the_bar_of_signed_maps_has_zero_in_the_middle() -> None:
    cell = SheetCell(Image.new("RGB", (90, 90)), colormap="RdBu_r")
    page = draw_sheet([], [SheetRow((), (cell,))], STYLE)
    assert {text.get_text() for text in page.texts} == {"\N{MINUS SIGN}", "+", "pale is 0"}


def test_a_frame_is_red_and_only_where_it_should_be() -> None:
    grey = Image.new("RGB", (60, 60), (90, 90, 90))
    cells = (SheetCell(grey), SheetCell(grey, is_framed=True))
    sheet = np.asarray(Image.open(io.BytesIO(encode([], [SheetRow((), cells)], STYLE, "png"))))
    red = (sheet[..., 0] > 180) & (sheet[..., 1] < 60) & (sheet[..., 2] < 60)
    layout = SheetLayout.from_grid(arrange_grid([], [SheetRow((), cells)], STYLE), STYLE)
    bar_start = layout.get_column_left(2)
    columns = np.flatnonzero(red[:, :bar_start].any(axis=0))
    assert columns.min() >= layout.get_column_left(1) - 3
    assert columns.max() <= layout.get_column_left(1) + layout.side + 3


def test_long_rows_are_wrapped_into_equal_lines_with_heads_of_their_own() -> None:
    style = SheetStyle(width=5, dpi=100, wrap=None, min_cell_width=1.0)
    heads = [f"h{n}" for n in range(5)]
    rows = create_rows(style, columns=5, lines=1)
    assert style.max_columns == 3
    grid = arrange_grid(heads, rows, style)
    assert [len(line.cells) for line in grid.lines] == [3, 2]
    assert not grid.tops
    captions = [cell.caption for line in grid.lines for cell in line.cells if cell]
    assert captions == [(head,) for head in heads]
    assert [line.label for line in grid.lines] == [("class 0", "0.50"), ()]
    assert [len(line.cells) for line in arrange_grid(heads, rows, SheetStyle(wrap=4)).lines] == [
        4,
        1,
    ]


def test_a_page_is_full_when_the_next_row_would_not_fit() -> None:
    rows = create_rows(STYLE, lines=6)
    heights = []
    for count in range(1, 7):
        grid = arrange_grid(["a"], rows[:count], STYLE)
        heights.append(SheetLayout.from_grid(grid, STYLE).size[1])
    limited = SheetStyle(width=5, dpi=100, max_height=heights[3] / 100)
    assert [fits_on_page(["a"], rows[:n], limited) for n in range(1, 7)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 20])
def test_no_picture_lies_beyond_the_page(count: int, transposed: bool) -> None:
    style = SheetStyle(
        width=3.5, dpi=60, is_transposed=transposed, min_columns=count, min_cell_width=0.6
    )
    rows = create_rows(style, columns=2 if transposed else count, lines=count if transposed else 2)
    while not fits_on_page([], rows, style):
        rows = rows[:-1]
    layout = SheetLayout.from_grid(arrange_grid([], rows, style), style)
    right = layout.get_column_left(layout.grid.column_count - 1) + layout.side
    assert right <= layout.size[0] - style.to_pixels(0.3)  # the place of the colour bar
    assert layout.side >= style.to_pixels(0.59)


def test_text_is_broken_at_words_and_cut_with_a_mark() -> None:
    wide = measure_text("Egyptian cat", 7, 100)
    assert fit_lines("Egyptian cat", 7, 100, wide, 1) == ["Egyptian cat"]
    assert fit_lines("Egyptian cat", 7, 100, wide - 2, 2) == ["Egyptian", "cat"]
    (cut,) = fit_lines("Egyptian cat", 7, 100, wide - 2, 1)
    assert cut.startswith("Egyptian")
    assert cut.endswith("…")
    assert measure_text(cut, 7, 100) <= wide - 2
    assert fit_label(["Egyptian cat", "0.78", ""], 7, 100, wide - 2, 4) == [
        "Egyptian",
        "cat",
        "0.78",
    ]
    assert len(fit_label(["W" * 500, "0.78"], 7, 100, 60, 4)) == 4
    assert fit_lines("a\nb", 7, 100, 999, 1) == [r"a\nb"]
    assert all(fit_lines("一只猫" * 40, 7, 100, 50, 3))


def test_a_score_is_never_cut_and_names_break_at_their_parts() -> None:
    wide = measure_text("drilling", 7, 100) + 1
    assert fit_scored_label("drilling platform", "0.55", 7, 100, wide, 1)[-1] == "0.55"
    lines = fit_scored_label("drilling platform", "0.55", 7, 100, wide + 10, 2)
    assert lines == ["drilling", "platform", "0.55"]
    assert fit_scored_label("cup", "0.06", 7, 100, 99, 2) == ["cup 0.06"]
    wide = measure_text("motorcycle_", 7, 100) + 1
    assert fit_lines("motorcycle_left", 7, 100, wide, 2) == ["motorcycle_", "left"]


def test_characters_without_a_font_are_found() -> None:
    assert not lacks_glyphs("Egyptian cat 0.78 é ß Ж …")
    assert lacks_glyphs("\U00013000")  # an Egyptian hieroglyph


def test_a_font_that_matplotlib_has_not_listed_yet_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """matplotlib lists fonts once, and a user installs one after camcli asked for it."""
    manager = font_manager.fontManager
    path = font_manager.findfont("STIXGeneral")
    kept = [font for font in manager.ttflist if font.name != "STIXGeneral"]
    monkeypatch.setattr(manager, "ttflist", kept)
    monkeypatch.setattr(sheet_text, "FALLBACK_FAMILIES", ("STIXGeneral",))
    monkeypatch.setattr(sheet_text, "list_preferred_font_files", lambda: [path])
    find_fonts = sheet_text.list_fonts.__wrapped__  # without its cache
    assert find_fonts() == ("DejaVu Sans", "STIXGeneral")
