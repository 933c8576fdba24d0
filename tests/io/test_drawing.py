"""Pictures: colours, captions, boxes that show on any background, and no false answers."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import gradient_image
from PIL import Image

from camcli.core.errors import UsageError
from camcli.core.geometry import View
from camcli.core.types import Box
from camcli.io.drawing import (
    CELL_PIXELS,
    GridCell,
    compute_cell_size,
    draw_boxes,
    draw_caption,
    draw_grid,
    draw_heatmap,
    draw_missing_map,
    draw_overlay,
    find_palette,
)


def test_a_palette_is_matplotlibs() -> None:
    import matplotlib

    colours = find_palette("viridis")
    assert colours.shape == (256, 3)
    expected = np.array(matplotlib.colormaps["viridis"](1.0)[:3]) * 255
    assert np.abs(colours[255] - expected).max() <= 0.5


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
def test_an_overlay_blends(alpha: float) -> None:
    picture = gradient_image(8, 4)
    heat = np.full((4, 8), 0.25, np.float32)
    blended = np.asarray(
        draw_overlay(picture, heat, View.from_whole_image(8, 4), "jet", alpha), np.float32
    )
    expected = (1 - alpha) * np.asarray(picture) + alpha * find_palette("jet")[64]
    assert np.abs(blended - expected).max() <= 1


@pytest.mark.parametrize("background", ["white", "black", "grey", "red"])
def test_boxes_show_on_any_background(background: str) -> None:
    picture = Image.new("RGB", (200, 160), background)
    plain = np.asarray(picture, np.int64)
    draw_boxes(picture, [Box(20, 30, 120, 140, 0.9)])
    contrast = np.abs(np.asarray(picture, np.int64) - plain).sum(axis=2)
    assert contrast[31:139, 20:22].max(axis=1).min() > 200
    assert not contrast[31 + 9 : 130, 31 + 9 : 110].any()  # the inside is left alone
    assert not contrast[:30].any()
    assert not contrast[:, 120:].any()


def test_a_box_of_one_pixel_is_drawn_without_error() -> None:
    draw_boxes(Image.new("RGB", (1, 1)), [Box(0, 0, 1, 1, 1.0)])


@pytest.mark.parametrize("size", [(1, 1), (47, 300), (3000, 10), (640, 480)])
@pytest.mark.parametrize("text", ["tabby 0.83 · gradcam", "x" * 500, "", "虎斑猫 0.83", "a\nb"])
def test_captions_fit_every_picture(size: tuple[int, int], text: str) -> None:
    picture = Image.new("RGB", size, "white")
    draw_caption(picture, text)
    assert picture.size == size


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


@pytest.mark.parametrize("size", [(1, 1), (20000, 10), (10, 20000), (451, 300)])
def test_cells_of_any_aspect_stay_small_and_visible(size: tuple[int, int]) -> None:
    width, height = compute_cell_size(*size)
    assert min(width, height) >= 24
    assert max(width, height) == CELL_PIXELS
