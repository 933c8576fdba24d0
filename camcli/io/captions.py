"""Captions of a picture: on it, or in a strip below with a colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from camcli.io.drawing import MIN_CAPTION_PIXELS, TEXT_COLOR, WHITE, find_palette, grow_rectangle
from camcli.io.fonts import compute_text_size, find_font, shorten_text

Color = tuple[int, int, int]
SHADE_RGBA = (0, 0, 0, 170)


@dataclass(frozen=True, slots=True)
class ColorBar:
    """The colours of a scale, with the values at its ends."""

    colormap: str
    low: float
    high: float


def draw_caption(image: Image.Image, text: str) -> None:
    """Write one line of text into the upper left corner; a long text is shortened."""
    if min(image.size) < MIN_CAPTION_PIXELS:
        return
    font = find_font(compute_text_size(image.size), text)
    text = shorten_text(text, font, image.width - 20)
    draw = ImageDraw.Draw(image, "RGBA")  # RGBA keeps the picture visible below
    left, top, right, bottom = grow_rectangle(font.getbbox(text), 5)
    draw.rounded_rectangle((left + 10, top + 8, right + 10, bottom + 8), 4, SHADE_RGBA)
    draw.text((10, 8), text, WHITE, font)


def add_caption(image: Image.Image, text: str, bar: ColorBar | None = None) -> Image.Image:
    """The picture with one line of text below it, and a colour bar at its right end.

    A picture that is too small for legible text stays as it is.
    """
    if min(image.size) < MIN_CAPTION_PIXELS:
        return image
    size = compute_text_size(image.size)
    high = size + 2 * (size // 2)
    captioned = _extend_down(image, high)
    middle = image.height + high // 2
    draw = ImageDraw.Draw(captioned)
    right = image.width - size // 2
    if bar is not None:
        right = _draw_bar(captioned, bar, right, middle, size) - size
    font = find_font(size, text)
    text = shorten_text(text, font, right - size // 2)
    draw.text((size // 2, middle), text, TEXT_COLOR, font, anchor="lm")
    return captioned


def add_legend(image: Image.Image, names: Sequence[str], colors: Sequence[Color]) -> Image.Image:
    """The picture with rows of names below it, each after a square of its colour."""
    if min(image.size) < MIN_CAPTION_PIXELS:
        return image
    size = max(10, compute_text_size(image.size) * 4 // 5)
    font = find_font(size, "".join(names))
    across = int(max(font.getlength(name) for name in names)) + 3 * size
    columns = max(1, min(len(names), image.width // across))
    rows = -(-len(names) // columns)
    line = size + 6
    extended = _extend_down(image, rows * line + size)
    draw = ImageDraw.Draw(extended)
    for n, (name, color) in enumerate(zip(names, colors, strict=True)):
        x = size // 2 + n % columns * across
        y = image.height + size // 2 + n // columns * line
        draw.rectangle((x, y, x + size, y + size), color)
        draw.text((x + size * 3 // 2, y + size / 2), name, TEXT_COLOR, font, anchor="lm")
    return extended


def _extend_down(image: Image.Image, by: int) -> Image.Image:
    extended = Image.new("RGB", (image.width, image.height + by), WHITE)
    extended.paste(image)
    return extended


def _draw_bar(image: Image.Image, bar: ColorBar, right: int, middle: int, size: int) -> int:
    """Draw the bar between its two values, up to `right`; returns where it starts."""
    draw, font = ImageDraw.Draw(image), find_font(size * 4 // 5, "")
    low, high = (f"{value:.3g}" for value in (bar.low, bar.high))
    draw.text((right, middle), high, TEXT_COLOR, font, anchor="rm")
    right -= int(font.getlength(high)) + size // 2
    wide = min(6 * size, image.width // 6)
    ramp = Image.linear_gradient("L").rotate(90).resize((wide, size * 3 // 4))
    ramp.putpalette(find_palette(bar.colormap).tobytes())
    image.paste(ramp.convert("RGB"), (right - wide, middle - size * 3 // 8))
    right -= wide + size // 2
    draw.text((right, middle), low, TEXT_COLOR, font, anchor="rm")
    return right - int(font.getlength(low))
