"""Draw on pictures: heatmaps, overlays, regions and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from camcli.core.errors import UsageError, format_suggestion
from camcli.core.geometry import Float32Array, View
from camcli.core.types import Box
from camcli.io.fonts import compute_text_size, find_font, shorten_text
from camcli.io.stored_palettes import STORED_PALETTES
from camcli.io.writers import BlendName

TEXT_COLOR, WHITE = (20, 20, 20), (255, 255, 255)
HALO_RGBA = (0, 0, 0, 150)
OUTSIDE_VIEW_COLOR = (128, 128, 128)
OUTSIDE_REGION_LIGHT = 0.25  # how much of its light a cutout keeps outside the region
MIN_CAPTION_PIXELS = 48  # on a shorter side a caption would not be legible
LINE_PIXELS = 2
BLUR_CELLS = 1.5  # rounds the corners of a region's cells


@lru_cache
def find_palette(colormap: str) -> NDArray[np.uint8]:
    """The 256 colours of a matplotlib colormap: (256, 3). Raises UsageError with near matches."""
    if colormap in STORED_PALETTES:
        return np.frombuffer(STORED_PALETTES[colormap], np.uint8).reshape(256, 3)
    from matplotlib import colormaps as known

    if colormap not in known:
        raise UsageError(
            f"--colormap {colormap}: matplotlib has no such colormap"
            f"{format_suggestion(colormap, known)}"
        )
    colours: NDArray[np.float64] = known[colormap](np.arange(256) / 255)
    return np.rint(colours[:, :3] * 255).astype(np.uint8)


def find_color(name: str) -> tuple[int, int, int]:
    """The RGB of a colour name such as "red", or of "#ff8800". Raises UsageError."""
    try:
        return ImageColor.getcolor(name, "RGB")  # type: ignore[return-value]
    except ValueError:
        near = format_suggestion(name, ImageColor.colormap)
        raise UsageError(
            f"--box-color {name}: no such colour{near} (write a name or #ff8800)"
        ) from None


def draw_levels(visible_map: Float32Array, view: View) -> Image.Image:
    """A map in [0, 1] as grey levels at the size of the visible area: (h, w) -> L.

    Bicubic, because bilinear interpolation of a coarse map shows its grid as creases.
    """
    left, top, right, bottom = view.visible_pixels
    # Pillow lets other threads run, unlike NumPy here. It truncates, so add 0.5 to round.
    scaled = Image.fromarray(visible_map * 255 + 0.5)
    return scaled.resize((right - left, bottom - top), Image.Resampling.BICUBIC).convert("L")


def draw_heatmap(visible_map: Float32Array, view: View, colormap: str) -> Image.Image:
    """Colour a map in [0, 1] and place it on the image's area: (h, w) -> RGB.

    Pixels outside the view are grey, because the map does not cover them.
    """
    colored = _color_levels(draw_levels(visible_map, view), colormap)
    return _place_in_view(
        colored, view, lambda: Image.new("RGB", view.image_size, OUTSIDE_VIEW_COLOR)
    )


def draw_transparent_heatmap(
    visible_map: Float32Array,
    view: View,
    colormap: str,
    alpha: float,
    blend: BlendName,
    *,
    is_signed: bool = False,
) -> Image.Image:
    """The heatmap as RGBA: laid over the image it gives the overlay."""
    levels = draw_levels(visible_map, view)
    colored = _color_levels(levels, colormap)
    colored.putalpha(_find_opacity(levels, alpha, blend, is_signed))
    return _place_in_view(colored, view, lambda: Image.new("RGBA", view.image_size, (0, 0, 0, 0)))


def draw_overlay(
    image: Image.Image,
    visible_map: Float32Array,
    view: View,
    colormap: str,
    alpha: float,
    blend: BlendName = "value",
    *,
    is_signed: bool = False,
) -> Image.Image:
    """Blend the heatmap over the image; darken the image outside the view.

    With blend "value" the opacity of a pixel is alpha times the map: where the map is 0, the image
    stays as it is. With "constant" it is alpha everywhere; with "none" only the map is drawn. A
    signed map has its zero at 0.5, where it is transparent.
    """
    levels = draw_levels(visible_map, view)
    inside = _color_levels(levels, colormap)
    if blend != "none":
        covered = image if inside.size == image.size else image.crop(view.visible_pixels)
        inside = Image.composite(inside, covered, _find_opacity(levels, alpha, blend, is_signed))
    return _place_in_view(inside, view, lambda: image.point(lambda level: level // 3))


def _color_levels(levels: Image.Image, colormap: str) -> Image.Image:
    indexed = levels.copy()
    indexed.putpalette(find_palette(colormap).tobytes())
    return indexed.convert("RGB")


def _find_opacity(
    levels: Image.Image, alpha: float, blend: BlendName, is_signed: bool
) -> Image.Image:
    """The opacity of each pixel, from 0 to 255."""
    if blend == "none":
        return Image.new("L", levels.size, 255)
    if blend == "constant":
        return Image.new("L", levels.size, round(255 * alpha))
    strengths = [abs(2 * level - 255) if is_signed else level for level in range(256)]
    return levels.point([round(alpha * strength) for strength in strengths])


def _place_in_view(
    inside: Image.Image, view: View, create_background: Callable[[], Image.Image]
) -> Image.Image:
    """Paste the visible part onto a background, unless it covers the whole image."""
    if inside.size == view.image_size:
        return inside
    picture = create_background()
    picture.paste(inside, view.visible_pixels[:2])
    return picture


def _draw_soft_region(region: NDArray[np.bool_], view: View) -> Image.Image:
    """A region (h, w) at the size of the image as L: 255 inside, 0 outside, smooth between."""
    left, top, right, bottom = view.visible_pixels
    grown = Image.fromarray(np.pad(region, 4, mode="edge")).convert("L")
    smooth = grown.filter(ImageFilter.GaussianBlur(BLUR_CELLS))
    inner = (4, 4, 4 + region.shape[1], 4 + region.shape[0])
    size = (right - left, bottom - top)
    soft = smooth.resize(size, Image.Resampling.BICUBIC, box=inner)
    return _place_in_view(soft, view, lambda: Image.new("L", view.image_size, 0))


def draw_contour(image: Image.Image, region: NDArray[np.bool_], view: View) -> None:
    """Draw the outline of a region (h, w) in place: a thin light line on a dark one."""
    soft = _draw_soft_region(region, view)
    left, top, right, bottom = view.visible_pixels
    pixels_per_cell = ((right - left) / region.shape[1] + (bottom - top) / region.shape[0]) / 2
    # The blurred edge follows the normal distribution, so that a level is a distance.
    edge = NormalDist(sigma=BLUR_CELLS * pixels_per_cell)
    distances = [abs(edge.inv_cdf(n / 255)) if 0 < n < 255 else np.inf for n in range(256)]
    thick = find_line_width(image.size)
    for color, width in ((TEXT_COLOR, thick + 1.5), (WHITE, thick - 0.5)):
        cover = [round(255 * min(1, max(0, width / 2 + 0.5 - d))) for d in distances]
        image.paste(color, mask=soft.point(cover))


def draw_cutout(image: Image.Image, region: NDArray[np.bool_], view: View) -> Image.Image:
    """The image inside a region (h, w); outside it is grey and dark."""
    dark = image.convert("L").point(lambda level: round(level * OUTSIDE_REGION_LIGHT))
    return Image.composite(image, dark.convert("RGB"), _draw_soft_region(region, view))


def draw_spotlight(
    image: Image.Image, visible_map: Float32Array, view: View, *, is_signed: bool = False
) -> Image.Image:
    """The image times a map in [0, 1]: bright where the map is high, black where it is 0.

    A signed map has its zero at 0.5, where the picture is black.
    """
    levels = draw_levels(visible_map, view)
    inside = image if levels.size == image.size else image.crop(view.visible_pixels)
    black = Image.new("RGB", levels.size)
    lit = Image.composite(inside, black, _find_opacity(levels, 1.0, "value", is_signed))
    return _place_in_view(lit, view, lambda: Image.new("RGB", view.image_size))


def draw_missing_map(image: Image.Image, reason: str) -> Image.Image:
    """The image in pale grey, crossed out, with the reason why there is no map."""
    grey = image.convert("L").point(lambda level: 150 + level // 3).convert("RGB")
    draw = ImageDraw.Draw(grey)
    width, height = grey.size
    thick = max(1, min(grey.size) // 120)
    draw.line((0, 0, width, height), (170, 60, 60), thick)
    draw.line((0, height, width, 0), (170, 60, 60), thick)
    if min(grey.size) >= MIN_CAPTION_PIXELS:
        font = find_font(compute_text_size(grey.size), reason)
        text = shorten_text(f"no map: {reason}", font, width - 16)
        middle = (width / 2, height / 2)
        around = draw.textbbox(middle, text, font, anchor="mm")
        draw.rectangle(grow_rectangle(around, 6), WHITE)
        draw.text(middle, text, (150, 30, 30), font, anchor="mm")
    return grey


def find_line_width(size: tuple[int, int]) -> int:
    """The width of lines: 2 pixels; more on huge pictures, less on tiny ones."""
    return 1 if min(size) < 120 else max(LINE_PIXELS, round(max(size) / 600))


def scale_boxes(
    boxes: Sequence[Box], size: tuple[int, int], new_size: tuple[int, int]
) -> list[Box]:
    """The boxes of an image of some size (width, height), on the image at another size."""
    across, down = new_size[0] / size[0], new_size[1] / size[1]
    return [
        replace(
            box,
            x1=round(box.x1 * across),
            y1=round(box.y1 * down),
            x2=round(box.x2 * across),
            y2=round(box.y2 * down),
        )
        for box in boxes
    ]


def draw_boxes(
    image: Image.Image,
    boxes: Sequence[Box],
    color: tuple[int, int, int] = WHITE,
    *,
    dashed: bool = False,
) -> None:
    """Draw boxes in place, thin, between two dark lines that show them on any background."""
    thick = find_line_width(image.size)
    for box in reversed(boxes):
        corners = (box.x1, box.y1, box.x2 - 1, box.y2 - 1)
        for inset, line, wide in ((0, HALO_RGBA, thick + 2), (1, color, thick)):
            inner = grow_rectangle(corners, -inset)
            if inner[2] > inner[0] and inner[3] > inner[1]:
                _draw_frame(image, inner, line, wide, dashed and line is color)


def _draw_frame(
    image: Image.Image,
    corners: tuple[float, float, float, float],
    color: tuple[int, ...],
    width: int,
    dashed: bool,
) -> None:
    draw = ImageDraw.Draw(image, "RGBA")  # RGBA blends transparent colours
    if not dashed:
        draw.rectangle(corners, outline=color, width=width)
        return
    left, top, right, bottom = corners
    dash = 4 * width
    for x in np.arange(left, right, 2 * dash):
        for y in (top, bottom - width + 1):
            draw.rectangle((x, y, min(x + dash, right), y + width - 1), color)
    for y in np.arange(top, bottom, 2 * dash):
        for x in (left, right - width + 1):
            draw.rectangle((x, y, x + width - 1, min(y + dash, bottom)), color)


def grow_rectangle(corners: Sequence[float], by: float) -> tuple[float, float, float, float]:
    """A rectangle with each side moved outwards."""
    left, top, right, bottom = corners
    return left - by, top - by, right + by, bottom + by
