"""Draw the maps of a result as pictures, and encode pictures as files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from camcli.core.errors import OutputError
from camcli.core.geometry import Float32Array, View, crop_visible_map, map_to_original
from camcli.core.types import STATUS_TEXTS, ClassExplanation, ImageMap, Result
from camcli.io.drawing import (
    GridCell,
    compute_cell_size,
    draw_boxes,
    draw_caption,
    draw_concepts,
    draw_grid,
    draw_heatmap,
    draw_missing_map,
    draw_overlay,
)
from camcli.io.writers import DrawingStyle

GRID_COLUMNS = 7  # pictures in one row of a grid
LAYER_COLUMNS = 6  # layers in one row of a grid that starts with the parts

IMAGE_ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 90},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 88},
}


def draw_result_overlay(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw the map over the image, with its boxes and a caption."""
    picture = draw_explanation(result, explanation, result.sample.image, result.sample.view, style)
    if style.with_boxes:
        draw_boxes(picture, explanation.boxes)
    draw_caption(picture, _format_title(result, explanation))
    return picture


def draw_result_heatmap(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw the map alone, or all concepts on a white background."""
    view, fused = result.sample.view, explanation.fused_map
    if result.has_concepts:
        blank = Image.new("RGB", result.sample.image.size, (255, 255, 255))
        return draw_explanation(result, explanation, blank, view, style)
    part = _find_visible_map(fused, view, style)
    if part is None:
        return draw_missing_map(result.sample.image, STATUS_TEXTS[fused.status].caption)
    return draw_heatmap(part, view, style.colormap)


def draw_result_grid(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw image | layers | fused map; or image | parts | fused map, with the layers below."""
    small = result.sample.image.resize(compute_cell_size(*result.sample.image.size))
    view = result.sample.view.to_image_size(*small.size)

    def cell(panel: ImageMap) -> GridCell:
        caption = result.map_captions.get(panel.name, panel.name)
        return GridCell(caption, draw_map(small, panel, view, style))

    first, layers = GridCell("image", small), [cell(panel) for panel in explanation.layer_maps]
    parts = [cell(panel) for panel in explanation.part_maps]
    if result.has_concepts:
        together = GridCell("all", draw_explanation(result, explanation, small, view, style))
        rows = _wrap_cells([first, *parts, together], GRID_COLUMNS)
    else:
        is_layer = explanation.fused_map in explanation.layer_maps
        fused = [] if is_layer else [cell(explanation.fused_map)]
        rows = (
            [[first, *parts, *fused], *_wrap_cells(layers, LAYER_COLUMNS)]
            if parts
            else _wrap_cells([first, *layers, *fused], GRID_COLUMNS)
        )
    return draw_grid(_format_title(result, explanation), rows)


def draw_explanation(
    result: Result,
    explanation: ClassExplanation,
    image: Image.Image,
    view: View,
    style: DrawingStyle,
) -> Image.Image:
    """Draw the fused map over an image; or all concepts, each in its colour, with a legend."""
    if not result.has_concepts or explanation.fused_map.status != "ok":
        return draw_map(image, explanation.fused_map, view, style)
    strongest = max(float(panel.values.max()) for panel in explanation.part_maps)
    total = sum(float(panel.values.sum()) for panel in explanation.part_maps)
    heats = [
        map_to_original(part, view) * (float(panel.values.max()) / strongest)
        for panel in explanation.part_maps
        for part in [crop_visible_map(panel.normalized, view, style.input_size)]
    ]
    names = [f"{p.name}  {float(p.values.sum()) / total:.0%}" for p in explanation.part_maps]
    return draw_concepts(image, heats, names)


def draw_map(
    image: Image.Image, image_map: ImageMap, view: View, style: DrawingStyle
) -> Image.Image:
    """Draw one map over an image, or the reason why there is no map."""
    part = _find_visible_map(image_map, view, style)
    if part is None:
        blank = "constant" if image_map.status == "ok" else image_map.status
        return draw_missing_map(image, STATUS_TEXTS[blank].caption)
    return draw_overlay(image, part, view, style.colormap, style.alpha)


def _find_visible_map(image_map: ImageMap, view: View, style: DrawingStyle) -> Float32Array | None:
    """The visible part of a map, or None if the map has no answer."""
    part = (
        crop_visible_map(image_map.normalized, view, style.input_size)
        if image_map.visible_part is None
        else image_map.visible_part
    )
    return part if image_map.status == "ok" and part.any() else None


def _wrap_cells(cells: list[GridCell], columns: int) -> list[list[GridCell]]:
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def _format_title(result: Result, explanation: ClassExplanation) -> str:
    return " · ".join(filter(None, (explanation.title, result.method_name)))


def encode_image(image: Image.Image, image_format: str) -> bytes:
    """The bytes of a picture file. Raises OutputError if the format cannot hold the picture."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, **IMAGE_ENCODINGS[image_format])
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"a {size} picture cannot be saved as {image_format}: {error}") from None
    return buffer.getvalue()
