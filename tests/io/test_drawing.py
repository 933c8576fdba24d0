"""Pictures: colours, captions, boxes that show on any background, and no false answers."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from conftest import gradient_image
from PIL import Image

from camcli.core.errors import UsageError
from camcli.core.geometry import View
from camcli.core.types import Box
from camcli.io.captions import ColorBar, add_caption, add_legend, draw_caption
from camcli.io.drawing import (
    draw_boxes,
    draw_contour,
    draw_cutout,
    draw_heatmap,
    draw_missing_map,
    draw_overlay,
    draw_transparent_heatmap,
    find_color,
    find_palette,
    scale_boxes,
)
from camcli.io.grids import (
    CELL_PIXELS,
    GridCell,
    choose_column_count,
    compute_cell_size,
    draw_grid,
    draw_matrix,
)
from camcli.io.map_looks import OVERLAY_COLORMAP, PIXEL_COLORMAP, SIGNED_COLORMAP
from camcli.io.stored_palettes import STORED_PALETTES
from camcli.io.writers import BlendName

WIDE = View.from_whole_image(8, 4)


def test_a_palette_is_matplotlibs() -> None:
    colours = find_palette("viridis")
    assert colours.shape == (256, 3)
    expected = np.array(matplotlib.colormaps["viridis"](1.0)[:3]) * 255
    assert np.abs(colours[255] - expected).max() <= 0.5


@pytest.mark.parametrize("name", STORED_PALETTES)
def test_a_stored_palette_is_matplotlibs(name: str) -> None:
    colours = matplotlib.colormaps[name](np.arange(256) / 255)[:, :3]
    assert np.array_equal(find_palette(name), np.rint(colours * 255).astype(np.uint8))


def test_every_default_palette_is_stored() -> None:
    assert {OVERLAY_COLORMAP, PIXEL_COLORMAP, SIGNED_COLORMAP} <= STORED_PALETTES.keys()


def test_an_unknown_colormap_suggests_near_ones() -> None:
    with pytest.raises(UsageError, match="did you mean viridis"):
        find_palette("viridid")


def test_a_heatmap_looks_each_level_up() -> None:
    heat = np.array([[0.0, 0.5, 1.0]], np.float32)
    pixels = np.asarray(draw_heatmap(heat, View(4, 1, 0, 0, 3, 1), "jet"))[0]
    table = find_palette("jet")
    assert pixels[:3].tolist() == [table[n].tolist() for n in (0, 128, 255)]
    assert pixels[3].tolist() == [128, 128, 128]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_a_constant_overlay_blends_alike_everywhere(alpha: float) -> None:
    picture = gradient_image(8, 4)
    heat = np.full((4, 8), 0.25, np.float32)
    blended = draw_overlay(picture, heat, WIDE, "jet", alpha, "constant")
    expected = (1 - alpha) * np.asarray(picture) + alpha * find_palette("jet")[64]
    assert np.abs(np.asarray(blended, np.float32) - expected).max() <= 1


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_the_opacity_of_an_overlay_grows_with_the_map(alpha: float) -> None:
    picture = gradient_image(8, 4)
    heat = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (4, 1))
    blended = np.asarray(draw_overlay(picture, heat, WIDE, "turbo", alpha), np.float32)
    photo = np.asarray(picture, np.float32)
    levels = np.floor(heat * 255 + 0.5)
    opacity = (alpha * levels / 255)[..., None]
    expected = (1 - opacity) * photo + opacity * find_palette("turbo")[levels.astype(int)]
    assert np.abs(blended - expected).max() <= 1.01
    assert np.array_equal(blended[:, 0], photo[:, 0])  # the photo where the map is 0
    peak = (1 - alpha) * photo[:, -1] + alpha * find_palette("turbo")[255]
    assert np.abs(blended[:, -1] - peak).max() <= 1


def test_without_blending_only_the_map_is_drawn() -> None:
    heat = np.tile(np.linspace(0, 1, 8, dtype=np.float32), (4, 1))
    alone = draw_overlay(gradient_image(8, 4), heat, WIDE, "gray", 0.5, "none")
    assert np.asarray(alone)[0, :, 0].tolist() == np.floor(heat[0] * 255 + 0.5).tolist()


@pytest.mark.parametrize("blend", ["value", "constant"])
def test_a_transparent_heatmap_over_the_image_is_the_overlay(blend: BlendName) -> None:
    picture = gradient_image(8, 4)
    heat = np.random.default_rng(0).random((4, 8), np.float32)
    layer = draw_transparent_heatmap(heat, WIDE, "turbo", 0.7, blend)
    assert layer.mode == "RGBA"
    below = picture.convert("RGBA")
    below.alpha_composite(layer)
    overlay = np.asarray(draw_overlay(picture, heat, WIDE, "turbo", 0.7, blend), int)
    assert np.abs(np.asarray(below.convert("RGB"), int) - overlay).max() <= 1


def test_a_picture_outside_the_view_is_darkened() -> None:
    picture = Image.new("RGB", (6, 4), (90, 150, 210))
    shown = draw_overlay(
        picture, np.zeros((4, 4), np.float32), View(6, 4, 1, 0, 5, 4), "turbo", 0.7
    )
    assert np.asarray(shown)[0].tolist() == [[30, 50, 70], *[[90, 150, 210]] * 4, [30, 50, 70]]


def test_a_cutout_keeps_the_region_and_darkens_the_rest() -> None:
    picture = Image.new("RGB", (60, 40), (200, 100, 40))
    region = np.zeros((40, 60), np.bool_)
    region[10:30, 20:50] = True
    shown = np.asarray(draw_cutout(picture, region, View.from_whole_image(60, 40)))
    assert (shown[15:25, 26:44] == (200, 100, 40)).all()
    grey = round((200 * 299 + 100 * 587 + 40 * 114) / 1000 * 0.25)
    assert np.abs(shown[:4].astype(int) - grey).max() <= 1
    assert np.abs(shown[:, :14].astype(int) - grey).max() <= 1


def test_a_contour_lies_on_the_edge_of_the_region() -> None:
    picture = Image.new("RGB", (300, 200), (128, 128, 128))
    region = np.zeros((100, 100), np.bool_)
    region[20:80, 30:70] = True  # pixels 40:160, 90:210
    draw_contour(picture, region, View.from_whole_image(300, 200))
    marked = (np.asarray(picture) != 128).any(axis=2)
    assert marked[100, 87:93].any()
    assert marked[100, 207:213].any()
    assert marked[37:43, 150].any()
    assert not marked[50:150, 100:200].any()  # inside
    assert not marked[:34].any()
    assert not marked[:, 217:].any()
    assert np.asarray(picture)[100, 85:95].max() > 200  # light on dark


def test_a_contour_of_everything_is_nowhere() -> None:
    picture = Image.new("RGB", (90, 60), (128, 128, 128))
    draw_contour(picture, np.ones((6, 9), np.bool_), View.from_whole_image(90, 60))
    assert (np.asarray(picture) == 128).all()


def test_colours_have_names() -> None:
    assert find_color("red") == (255, 0, 0)
    assert find_color("#ff8800") == (255, 136, 0)
    with pytest.raises(UsageError, match="--box-color grean: no such colour; did you mean green"):
        find_color("grean")


@pytest.mark.parametrize("background", ["white", "black", "grey", "red"])
def test_boxes_show_on_any_background(background: str) -> None:
    picture = Image.new("RGB", (200, 160), background)
    plain = np.asarray(picture, np.int64)
    draw_boxes(picture, [Box(20, 30, 120, 140, 0.9)])
    contrast = np.abs(np.asarray(picture, np.int64) - plain).sum(axis=2)
    assert contrast[31:139, 20:24].max(axis=1).min() > 200
    assert not contrast[34:136, 24:116].any()  # the inside is left alone
    assert not contrast[:30].any()
    assert not contrast[:, 120:].any()


@pytest.mark.parametrize(("side", "width"), [(60, 1), (500, 2), (1000, 2), (3000, 5)])
def test_a_box_is_two_pixels_wide_and_more_on_huge_photos(side: int, width: int) -> None:
    picture = Image.new("RGB", (side, side), "black")
    draw_boxes(picture, [Box(0, 0, side, side, 1.0)], (255, 0, 0))
    row = np.asarray(picture)[side // 2, : side // 2, 0]
    assert np.flatnonzero(row).tolist() == list(range(1, 1 + width))


def test_a_dashed_box_has_gaps() -> None:
    picture = Image.new("RGB", (200, 160), "black")
    draw_boxes(picture, [Box(20, 30, 180, 140, 0.9)], (255, 0, 0), dashed=True)
    row = np.asarray(picture)[31, 21:179, 0]
    assert set(np.unique(row)) == {0, 255}
    assert 0.3 < (row > 0).mean() < 0.7


def test_boxes_are_scaled_with_their_picture() -> None:
    (box,) = scale_boxes([Box(10, 20, 31, 41, 0.5)], (100, 200), (50, 400))
    assert box == Box(5, 40, 16, 82, 0.5)


def test_a_box_of_one_pixel_is_drawn_without_error() -> None:
    draw_boxes(Image.new("RGB", (1, 1)), [Box(0, 0, 1, 1, 1.0)])


@pytest.mark.parametrize("size", [(1, 1), (47, 300), (3000, 10), (640, 480)])
@pytest.mark.parametrize("text", ["tabby 0.83 · gradcam", "x" * 500, "", "虎斑猫 0.83", "a\nb"])
def test_captions_fit_every_picture(size: tuple[int, int], text: str) -> None:
    picture = Image.new("RGB", size, "white")
    draw_caption(picture, text)
    assert picture.size == size


def test_a_caption_below_leaves_the_picture_alone() -> None:
    picture = gradient_image(200, 150)
    captioned = add_caption(picture, "tabby 0.83", ColorBar("gray", 0.0, 3.2))
    assert captioned.size[0] == 200
    assert np.array_equal(np.asarray(captioned)[:150], np.asarray(picture))
    strip = np.asarray(captioned)[150:]
    assert strip.min() < 60
    assert (strip == 255).all(axis=2).mean() > 0.4
    assert add_caption(gradient_image(40, 300), "tabby").size == (40, 300)  # would not be legible


def test_a_legend_is_below_the_picture() -> None:
    picture, colors = gradient_image(200, 150), [(255, 0, 0), (0, 0, 255)]
    shown = np.asarray(add_legend(picture, ["one", "two"], colors))
    assert np.array_equal(shown[:150], np.asarray(picture))
    for color in colors:
        assert (shown[150:] == color).all(axis=2).sum() > 80


def test_a_caption_is_legible() -> None:
    for background in ("white", "black"):
        captioned = Image.new("RGB", (400, 300), background)
        draw_caption(captioned, "tabby")
        picture = np.asarray(captioned)
        corner = picture[5:40, 5:90].astype(int).sum(axis=2)
        assert corner.max() - corner.min() > 350


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (640, 480)])
def test_no_answer_has_no_colours_of_a_map(size: tuple[int, int]) -> None:
    picture = draw_missing_map(Image.new("RGB", size, "blue"), "the gradient is zero here")
    pixels = np.asarray(picture).astype(int)
    assert picture.size == size
    assert pixels[..., 2].max() <= 255
    blue = (pixels[..., 2] - pixels[..., 0]) > 30
    assert not blue.any()


def test_a_grid_holds_every_cell_under_its_label() -> None:
    colours = ["red", "lime", "blue"]
    rows = [[GridCell(c, Image.new("RGB", (60, 40), c)) for c in colours]]
    sheet = np.asarray(draw_grid("title", rows)).reshape(-1, 3)
    for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert (sheet == colour).all(axis=1).sum() == 60 * 40


@pytest.mark.parametrize(
    ("count", "preferred", "columns"),
    [(1, 8, 1), (7, 7, 7), (8, 8, 8), (16, 4, 4), (12, 8, 6), (20, 8, 5), (13, 8, 7), (28, 4, 4)],
)
def test_rows_of_a_grid_have_few_empty_places(count: int, preferred: int, columns: int) -> None:
    assert choose_column_count(count, preferred) == columns


def test_a_small_picture_stands_in_the_middle_of_its_place() -> None:
    cells = [GridCell("a", Image.new("RGB", (120, 60), "red"))]
    cells += [GridCell("b", Image.new("RGB", (20, 40), "blue"), note="one\ntwo")]
    sheet = np.asarray(draw_grid("", [cells]))
    red, blue = ((sheet == color).all(axis=2) for color in ((255, 0, 0), (0, 0, 255)))
    assert (red.sum(), blue.sum()) == (120 * 60, 20 * 40)
    assert np.flatnonzero(blue.any(axis=1))[0] - np.flatnonzero(red.any(axis=1))[0] == 10


def test_a_matrix_leaves_the_other_half_empty() -> None:
    values = np.array([[0.5, -1.0], [np.nan, 1.0]])
    sheet = draw_matrix("title", ["a", "b"], ["b", "c"], values)
    counts = {color: n for n, color in sheet.getcolors(1 << 16) or []}
    filled = sorted(color for color, n in counts.items() if 1500 < n <= 45 * 45)
    palette = find_palette("RdBu_r")
    expected = [tuple(palette[round(127.5 + 85 * v)].tolist()) for v in (0.5, -1.0, 1.0)]
    assert filled == sorted(expected)


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (10, 20000), (451, 300)])
def test_cells_of_any_aspect_stay_small_and_visible(size: tuple[int, int]) -> None:
    width, height = compute_cell_size(*size)
    assert min(width, height) >= 24
    assert max(width, height) == CELL_PIXELS
    assert max(compute_cell_size(*size, 100)) == 100
