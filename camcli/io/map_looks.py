"""How a map becomes colours: its colormap, its scale, and how it meets the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from camcli.core.geometry import Float32Array, View, normalize_array
from camcli.core.types import ImageMap, Result
from camcli.io.value_ranges import Range
from camcli.io.writers import BlendName, DrawingStyle

OVERLAY_COLORMAP, PIXEL_COLORMAP, SIGNED_COLORMAP = "turbo", "gray", "RdBu_r"
SIGNED_PERCENTILE = 99.0  # a few pixels of a gradient are far above all others


@dataclass(frozen=True, slots=True)
class MapLook:
    """How one map is drawn. `value_range` None means the map's own minimum and maximum.

    A signed map has its zero in the middle of the colours.
    """

    colormap: str
    blend: BlendName
    value_range: Range | None
    is_signed: bool


def choose_look(image_map: ImageMap, style: DrawingStyle, result: Result | None) -> MapLook:
    """What the style says; or turbo over the image, and grey alone for a pixel-level map.

    A pixel-level map with negative values gets two colours.
    """
    is_pixel_level = result is not None and result.is_pixel_level
    is_signed = (
        is_pixel_level
        and style.colormap is None
        and image_map.status == "ok"
        and float(image_map.values.min()) < 0
    )
    shared = _find_range(image_map, style, result)
    if is_signed and shared:
        shared = (-max(map(abs, shared)), max(map(abs, shared)))
    own = SIGNED_COLORMAP if is_signed else PIXEL_COLORMAP if is_pixel_level else OVERLAY_COLORMAP
    return MapLook(
        colormap=style.colormap or own,
        blend=style.blend or ("none" if is_pixel_level else "value"),
        value_range=shared,
        is_signed=is_signed,
    )


def _find_range(image_map: ImageMap, style: DrawingStyle, result: Result | None) -> Range | None:
    if style.value_range is None:
        return None
    return style.value_range.find(result.method_name if result else "", image_map.name)


def find_display_map(
    image_map: ImageMap, view: View, style: DrawingStyle, look: MapLook
) -> Float32Array | None:
    """The visible part of a map in [0, 1], as it is drawn; None if the map has no answer.

    It keeps the map's own size if the whole of it is visible. Only pictures use it: boxes and
    masks come from `crop_visible_map`.
    """
    if image_map.status != "ok":
        return None
    if look.value_range is not None:
        return _crop_map(_scale_values(image_map.values, look.value_range), view, style.input_size)
    if look.is_signed:
        limit = float(np.percentile(np.abs(image_map.values), min(style.clip, SIGNED_PERCENTILE)))
        return _crop_map(_scale_values(image_map.values, (-limit, limit)), view, style.input_size)
    part = normalize_array(_crop_map(image_map.normalized, view, style.input_size))
    if not part.any():
        return None
    return part if style.clip == 100 else _clip_values(part, style.clip)


def _scale_values(values: Float32Array, value_range: Range) -> Float32Array:
    low, high = value_range
    return ((values - low) / max(high - low, 1e-12)).clip(0, 1).astype(np.float32)


def _clip_values(part: Float32Array, percentile: float) -> Float32Array:
    """Let a percentile of the map be its maximum, unless it is its minimum."""
    top = float(np.percentile(part, percentile))
    return (part / top).clip(0, 1).astype(np.float32) if top > 0 else part


def _crop_map(values: Float32Array, view: View, size: tuple[int, int]) -> Float32Array:
    """The part of a map (h, w) in [0, 1] that shows the image.

    A part is resized to the pixels of the input, because its edges lie between the map's cells.
    """
    height, width = size
    left, top, right, bottom = view.compute_input_window(height, width)
    if (left, top, right, bottom) == (0, 0, width, height):
        return values
    across, down = values.shape[1] / width, values.shape[0] / height
    box = (left * across, top * down, right * across, bottom * down)
    shown = Image.fromarray(values).resize(
        (right - left, bottom - top), Image.Resampling.BICUBIC, box
    )
    return np.asarray(shown, np.float32).clip(0, 1)


def format_values(image_map: ImageMap, style: DrawingStyle, result: Result | None) -> str:
    """The smallest and the largest value of a map, and those of a shared scale."""
    if image_map.status != "ok":
        return ""
    own = format_range((float(image_map.values.min()), float(image_map.values.max())))
    shared = choose_look(image_map, style, result).value_range
    return f"{own} (colours {format_range(shared)})" if shared else own


def format_range(value_range: Range) -> str:
    """Two values with three digits: "0 … 3.21"; one that is tiny beside the other is 0."""
    largest = max(map(abs, value_range))
    shown = (0.0 if abs(value) < 1e-6 * largest else value for value in value_range)
    return " … ".join(f"{value:.3g}" for value in shown)
