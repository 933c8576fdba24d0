"""Draw pictures: heatmaps, overlays, boxes, captions, grids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from camcli.core.errors import UsageError, format_suggestion, to_one_line
from camcli.core.geometry import Float32Array, View
from camcli.core.types import Box

TEXT_COLOR, WHITE, SHADE_RGBA, LABEL_COLOR = (
    (20, 20, 20),
    (255, 255, 255),
    (0, 0, 0, 170),
    (110, 110, 110),
)
OUTSIDE_VIEW_COLOR = (128, 128, 128)
CELL_PIXELS = 260  # longer side of a picture in a grid
GAP_PIXELS = 10
MIN_CAPTION_PIXELS = 48  # on a shorter side a caption would not be legible

# Tried in this order for names without glyphs in DejaVu, such as Chinese ones.
FALLBACK_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "wqy-microhei.ttc",
    "simhei.ttf",
)


@lru_cache
def find_palette(colormap: str) -> NDArray[np.uint8]:
    """The 256 colours of a matplotlib colormap: (256, 3). Raises UsageError with near matches."""
    known = matplotlib.colormaps
    if colormap not in known:
        raise UsageError(
            f"--colormap {colormap}: matplotlib has no such colormap"
            f"{format_suggestion(colormap, known)}"
        )
    colours: NDArray[np.float64] = known[colormap](np.arange(256) / 255)
    return np.rint(colours[:, :3] * 255).astype(np.uint8)


def draw_heatmap(visible_map: Float32Array, view: View, colormap: str) -> Image.Image:
    """Colour a map in [0, 1] and place it on the image's area: (h, w) -> RGB.

    Pixels outside the view are grey, because the map does not cover them.
    """
    left, top, right, bottom = view.visible_pixels
    # Pillow lets other threads run, unlike NumPy here. It truncates, so add 0.5 to round.
    scaled = Image.fromarray(visible_map * 255 + 0.5)
    levels = scaled.resize((right - left, bottom - top), Image.Resampling.BILINEAR).convert("L")
    levels.putpalette(find_palette(colormap).tobytes())
    return _place_in_view(
        levels.convert("RGB"), view, lambda: Image.new("RGB", view.image_size, OUTSIDE_VIEW_COLOR)
    )


def draw_overlay(
    image: Image.Image, visible_map: Float32Array, view: View, colormap: str, alpha: float
) -> Image.Image:
    """Blend the heatmap over the image with opacity `alpha`; darken the image outside the view."""
    blended = Image.blend(image, draw_heatmap(visible_map, view, colormap), alpha)
    if view.visible_pixels == (0, 0, *view.image_size):
        return blended
    inside = blended.crop(view.visible_pixels)
    return _place_in_view(inside, view, lambda: image.point(lambda level: level // 3))


def _place_in_view(
    inside: Image.Image, view: View, create_background: Callable[[], Image.Image]
) -> Image.Image:
    """Paste the visible part onto a background, unless it covers the whole image."""
    if inside.size == view.image_size:
        return inside
    picture = create_background()
    picture.paste(inside, view.visible_pixels[:2])
    return picture


def draw_concepts(
    image: Image.Image, heatmaps: Sequence[Float32Array], names: Sequence[str]
) -> Image.Image:
    """Colour each pixel by its strongest concept, over the grey image, with a legend."""
    stack = np.nan_to_num(np.stack(heatmaps))
    first, strength = stack.argmax(axis=0), stack.max(axis=0)[..., None]
    colours = _choose_concept_colors(len(heatmaps))
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    mixed = grey * (1 - 0.75 * strength) + colours[first] * (0.75 * strength)
    shown = Image.fromarray(np.rint(mixed).astype(np.uint8))
    if min(shown.size) >= MIN_CAPTION_PIXELS * 3:
        _draw_legend(shown, names, colours)
    return shown


def _choose_concept_colors(count: int) -> NDArray[np.float32]:
    """Distinct colours: matplotlib's tab10, repeated after ten."""
    known = matplotlib.colormaps["tab10"](np.arange(count) % 10)
    return np.asarray(known[:, :3] * 255, np.float32)


def _draw_legend(image: Image.Image, names: Sequence[str], colors: NDArray[np.float32]) -> None:
    """Draw one row per concept in the lower left corner, with a square of its colour."""
    size = max(10, _compute_text_size(image.size) * 3 // 4)
    font = _find_font(size, "".join(names))
    draw = ImageDraw.Draw(image, "RGBA")
    wide = max(font.getlength(name) for name in names)
    high = size + 5
    top = image.height - high * len(names) - 8
    draw.rectangle((0, top - 6, wide + 2 * size + 8, image.height), SHADE_RGBA)
    for n, name in enumerate(names):
        y = top + n * high
        draw.rectangle((8, y, 8 + size, y + size), tuple(colors[n].astype(int).tolist()))
        draw.text((14 + size, y + size / 2), name, WHITE, font, anchor="lm")


def draw_missing_map(image: Image.Image, reason: str) -> Image.Image:
    """The image in pale grey, crossed out, with the reason why there is no map."""
    grey = image.convert("L").point(lambda level: 150 + level // 3).convert("RGB")
    draw = ImageDraw.Draw(grey)
    width, height = grey.size
    thick = max(1, min(grey.size) // 120)
    draw.line((0, 0, width, height), (170, 60, 60), thick)
    draw.line((0, height, width, 0), (170, 60, 60), thick)
    if min(grey.size) >= MIN_CAPTION_PIXELS:
        font = _find_font(_compute_text_size(grey.size), reason)
        text = _shorten_text(f"no map: {reason}", font, width - 16)
        middle = (width / 2, height / 2)
        around = draw.textbbox(middle, text, font, anchor="mm")
        draw.rectangle(_grow_rectangle(around, 6), WHITE)
        draw.text(middle, text, (150, 30, 30), font, anchor="mm")
    return grey


def draw_boxes(
    image: Image.Image, boxes: Sequence[Box], color: tuple[int, int, int] = WHITE
) -> None:
    """Draw boxes in place: a light line between two dark ones is visible on any background."""
    draw = ImageDraw.Draw(image)
    thick = max(1, round(min(image.size) / 160))
    for box in reversed(boxes):
        corners = (box.x1, box.y1, box.x2 - 1, box.y2 - 1)
        for inset, line, wide in ((0, TEXT_COLOR, 3 * thick), (thick, color, thick)):
            inner = _grow_rectangle(corners, -inset)
            if inner[2] > inner[0] and inner[3] > inner[1]:
                draw.rectangle(inner, outline=line, width=wide)


def draw_caption(image: Image.Image, text: str) -> None:
    """Write one line of text into the upper left corner; a long text is shortened."""
    if min(image.size) < MIN_CAPTION_PIXELS:
        return
    font = _find_font(_compute_text_size(image.size), text)
    text = _shorten_text(text, font, image.width - 20)
    draw = ImageDraw.Draw(image, "RGBA")  # RGBA keeps the picture visible below
    left, top, right, bottom = _grow_rectangle(font.getbbox(text), 5)
    draw.rounded_rectangle((left + 10, top + 8, right + 10, bottom + 8), 4, SHADE_RGBA)
    draw.text((10, 8), text, WHITE, font)


@dataclass(frozen=True, slots=True)
class GridCell:
    """A picture of a grid, with its label."""

    label: str
    image: Image.Image


def compute_cell_size(width: int, height: int) -> tuple[int, int]:
    """The size of a picture in a grid; it keeps the aspect ratio, but is at least 24 pixels."""
    scale = CELL_PIXELS / max(width, height)
    return max(24, round(width * scale)), max(24, round(height * scale))


def letterbox_image(image: Image.Image) -> Image.Image:
    """Centre a picture in a square cell, so that pictures of any shape line up."""
    square = Image.new("RGB", (CELL_PIXELS, CELL_PIXELS), (238, 238, 238))
    square.paste(image, ((CELL_PIXELS - image.width) // 2, (CELL_PIXELS - image.height) // 2))
    return square


def draw_grid(title: str, rows: Sequence[Sequence[GridCell]]) -> Image.Image:
    """Draw rows of labelled pictures of one size under a title."""
    width, height = rows[0][0].image.size
    label, headline = (
        _find_font(14, "".join(c.label for row in rows for c in row)),
        _find_font(18, title),
    )
    wide, high = max(width, 150) + GAP_PIXELS, height + 22 + GAP_PIXELS
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB", (max(columns * wide, 320) + GAP_PIXELS, len(rows) * high + 34 + GAP_PIXELS), WHITE
    )
    draw = ImageDraw.Draw(sheet)
    draw.text(
        (GAP_PIXELS, 10),
        _shorten_text(title, headline, sheet.width - 2 * GAP_PIXELS),
        TEXT_COLOR,
        headline,
    )
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            x, y = GAP_PIXELS + c * wide, 40 + r * high
            draw.text(
                (x, y), _shorten_text(cell.label, label, wide - GAP_PIXELS), LABEL_COLOR, label
            )
            sheet.paste(cell.image, (x, y + 20))
    return sheet


def draw_matrix(title: str, labels: Sequence[str], values: NDArray[np.float64]) -> Image.Image:
    """Draw a square matrix of numbers in [-1, 1], coloured by value; NaN stays empty."""
    font, headline = _find_font(13, "".join(labels)), _find_font(18, title)
    side, left = 46, 24 + min(420, max(int(font.getlength(to_one_line(text))) for text in labels))
    top = 50 + left
    size = (left + side * len(labels) + GAP_PIXELS, top + side * len(labels) + GAP_PIXELS)
    sheet = Image.new("RGB", (max(size[0], 320), size[1]), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP_PIXELS, 10), title, TEXT_COLOR, headline)
    for n, label in enumerate(labels):
        text = _shorten_text(label, font, left - 16)
        draw.text((left - 8, top + side * (n + 0.5)), text, LABEL_COLOR, font, anchor="rm")
        upright = Image.new("RGB", (left, side), WHITE)
        ImageDraw.Draw(upright).text((8, side / 2), text, LABEL_COLOR, font, anchor="lm")
        sheet.paste(upright.rotate(90, expand=True), (left + side * n, top - left))
    colours = find_palette("RdBu_r")
    for (row, col), value in np.ndenumerate(values):
        if np.isfinite(value):
            corner = (left + side * col, top + side * row)
            # Use the middle two thirds of the colours: black text is legible on all of them.
            colour = tuple(colours[round(127.5 + 85 * float(value))].tolist())
            draw.rectangle((*corner, corner[0] + side - 2, corner[1] + side - 2), colour)
            middle = (corner[0] + side / 2 - 1, corner[1] + side / 2 - 1)
            draw.text(middle, f"{round(float(value), 2) + 0:.2f}", TEXT_COLOR, font, anchor="mm")
    return sheet


def stack_images(*images: Image.Image) -> Image.Image:
    """Stack pictures on a white background, one below the other."""
    wide, high = max(p.width for p in images), sum(p.height for p in images)
    sheet, y = Image.new("RGB", (wide, high), WHITE), 0
    for one in images:
        sheet.paste(one, (0, y))
        y += one.height
    return sheet


def _compute_text_size(size: tuple[int, int]) -> int:
    return max(11, min(36, min(size) // 20, size[0] // 18))


def _grow_rectangle(corners: Sequence[float], by: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = corners
    return left - by, top - by, right + by, bottom + by


def _shorten_text(text: str, font: ImageFont.FreeTypeFont, max_width: float) -> str:
    text = to_one_line(text)
    if font.getlength(text) <= max_width:
        return text
    while text and font.getlength(f"{text}…") > max_width:
        text = text[:-1]
    return f"{text}…" if text else ""


def _find_font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, or the first installed font that has the glyphs of the text."""
    return _load_font(size, not all(ord(c) < 0x2E80 for c in text))


@lru_cache
def _load_font(size: int, east_asian: bool) -> ImageFont.FreeTypeFont:
    own = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in (*(FALLBACK_FONTS if east_asian else ()), str(own)):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    raise FileNotFoundError(own)
