"""Draw the maps of a result as pictures, and encode pictures as files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from camcli.core.errors import OutputError
from camcli.core.geometry import View, crop_visible_map, map_to_original
from camcli.core.types import STATUS_TEXTS, ClassExplanation, ImageMap, Result, format_title
from camcli.io.captions import ColorBar, add_caption, add_legend, draw_caption
from camcli.io.concepts import choose_concept_colors, draw_concepts
from camcli.io.drawing import (
    draw_boxes,
    draw_contour,
    draw_cutout,
    draw_heatmap,
    draw_missing_map,
    draw_overlay,
    draw_spotlight,
    draw_transparent_heatmap,
    find_color,
    scale_boxes,
)
from camcli.io.fonts import can_draw_text
from camcli.io.grids import GridCell, choose_column_count, compute_cell_size, draw_grid, wrap_cells
from camcli.io.map_looks import choose_look, find_display_map, format_range, format_values
from camcli.io.writers import DrawingStyle

IMAGE_ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 90},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 88},
}
# Colours at full resolution: text and thin lines on a sheet stay sharp.
SHEET_ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    **IMAGE_ENCODINGS,
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True},
}


def draw_result_overlay(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw the map over the image, with its boxes, its contour and a caption."""
    view = result.sample.view
    picture = draw_explanation(result, explanation, result.sample.image, view, style)
    mark_region(picture, result, explanation, style)
    picture = _add_concept_legend(picture, result, explanation)
    return _add_result_caption(picture, result, explanation, style)


def draw_result_heatmap(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw the map alone, or all concepts on a white background."""
    view, fused = result.sample.view, explanation.fused_map
    if result.has_concepts:
        blank = Image.new("RGB", result.sample.image.size, (255, 255, 255))
        picture = draw_explanation(result, explanation, blank, view, style)
        return _add_concept_legend(picture, result, explanation)
    look = choose_look(fused, style, result)
    part = find_display_map(fused, view, style, look)
    if part is None:
        return draw_missing_map(result.sample.image, STATUS_TEXTS[fused.status].caption)
    return draw_heatmap(part, view, look.colormap)


def _add_concept_legend(
    picture: Image.Image, result: Result, explanation: ClassExplanation
) -> Image.Image:
    if not result.has_concepts or explanation.fused_map.status != "ok":
        return picture
    colors = choose_concept_colors(len(explanation.part_maps))
    return add_legend(picture, _name_concepts(explanation), colors)


def draw_result_transparent(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw the map alone as RGBA; wholly transparent without an answer."""
    view, fused = result.sample.view, explanation.fused_map
    look = choose_look(fused, style, result)
    part = find_display_map(fused, view, style, look)
    if part is None:
        return Image.new("RGBA", view.image_size, (0, 0, 0, 0))
    blend = "value" if look.blend == "none" else look.blend
    return draw_transparent_heatmap(
        part, view, look.colormap, style.alpha, blend, is_signed=look.is_signed
    )


def draw_result_cutout(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw the image, dark outside the regions that the boxes bound."""
    return draw_explanation_cutout(explanation, result.sample.image, result.sample.view)


def draw_explanation_cutout(
    explanation: ClassExplanation, image: Image.Image, view: View
) -> Image.Image:
    """Draw the image at any size, dark outside the regions that the boxes bound."""
    if explanation.region is None:
        status = explanation.fused_map.status
        reason = STATUS_TEXTS[status].caption if status in STATUS_TEXTS else "concepts have none"
        return draw_missing_map(image, reason)
    return draw_cutout(image, explanation.region, view)


def draw_result_grid(
    result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Draw image | layers | fused map; or image | parts | fused map, then the layers."""
    size = compute_cell_size(*result.sample.image.size, style.cell_pixels)
    small = result.sample.image.resize(size)
    view = result.sample.view.to_image_size(*small.size)

    def cell(panel: ImageMap) -> GridCell:
        caption = result.map_captions.get(panel.name, panel.name)
        picture = draw_map(small, panel, view, style, result)
        if panel is explanation.fused_map:
            mark_region(picture, result, explanation, style)
        return GridCell(caption, picture, format_values(panel, style, result))

    first, layers = GridCell("image", small), [cell(panel) for panel in explanation.layer_maps]
    parts = [cell(panel) for panel in explanation.part_maps]
    if result.has_concepts:
        together = GridCell("all", draw_explanation(result, explanation, small, view, style))
        cells = [first, *_add_swatches(parts), together]
        first_row = len(cells)
    else:
        is_layer = any(panel is explanation.fused_map for panel in explanation.layer_maps)
        fused = [] if is_layer else [cell(explanation.fused_map)]
        top = [first, *parts, *fused] if parts else [first]
        cells = [*top, *layers] if parts else [*top, *layers, *fused]
        first_row = len(top) if parts else len(cells)
    columns = choose_column_count(len(cells), first_row)
    if first_row < len(cells):
        columns = first_row if len(layers) % first_row == 0 else columns
    return draw_grid(_format_title(result, explanation), wrap_cells(cells, columns))


def _add_swatches(parts: list[GridCell]) -> list[GridCell]:
    colors = choose_concept_colors(len(parts))
    return [
        GridCell(cell.label, cell.image, cell.note, color)
        for cell, color in zip(parts, colors, strict=True)
    ]


def draw_explanation(
    result: Result,
    explanation: ClassExplanation,
    image: Image.Image,
    view: View,
    style: DrawingStyle,
) -> Image.Image:
    """Draw the fused map over an image; or all concepts, each in its colour."""
    if not result.has_concepts or explanation.fused_map.status != "ok":
        return draw_map(image, explanation.fused_map, view, style, result)
    strongest = max(float(panel.values.max()) for panel in explanation.part_maps)
    heats = [
        map_to_original(part, view) * (float(panel.values.max()) / strongest)
        for panel in explanation.part_maps
        for part in [crop_visible_map(panel.normalized, view, style.input_size)]
    ]
    return draw_concepts(image, heats)


def draw_map(
    image: Image.Image,
    image_map: ImageMap,
    view: View,
    style: DrawingStyle,
    result: Result | None = None,
) -> Image.Image:
    """Draw one map over an image, or the reason why there is no map.

    The `result` tells how maps of its method are drawn.
    """
    look = choose_look(image_map, style, result)
    part = find_display_map(image_map, view, style, look)
    if part is None:
        blank = "constant" if image_map.status == "ok" else image_map.status
        return draw_missing_map(image, STATUS_TEXTS[blank].caption)
    return draw_overlay(
        image, part, view, look.colormap, style.alpha, look.blend, is_signed=look.is_signed
    )


def draw_map_spotlight(
    image: Image.Image, image_map: ImageMap, view: View, style: DrawingStyle, result: Result
) -> Image.Image:
    """Draw the image times one map, or the reason why there is no map."""
    look = choose_look(image_map, style, result)
    part = find_display_map(image_map, view, style, look)
    if part is None:
        blank = "constant" if image_map.status == "ok" else image_map.status
        return draw_missing_map(image, STATUS_TEXTS[blank].caption)
    return draw_spotlight(image, part, view, is_signed=look.is_signed)


def mark_region(
    picture: Image.Image, result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> None:
    """Draw in place the contour and the boxes of the fused map that the style asks for.

    The picture shows the whole image, at any size.
    """
    view = result.sample.view
    if style.contour and explanation.region is not None:
        draw_contour(picture, explanation.region, view.to_image_size(*picture.size))
    if style.with_boxes:
        boxes = scale_boxes(explanation.boxes, view.image_size, picture.size)
        draw_boxes(picture, boxes, find_color(style.box_color))


def _add_result_caption(
    picture: Image.Image, result: Result, explanation: ClassExplanation, style: DrawingStyle
) -> Image.Image:
    """Add the title where the style wants it, with the scale if it is not the map's own."""
    if style.caption == "none":
        return picture
    look = choose_look(explanation.fused_map, style, result)
    scale = None if result.has_concepts else look.value_range
    title = _format_title(result, explanation)
    if style.clip < 100 and scale is None and not result.has_concepts:
        title += f" · clipped at p{style.clip:g}"
    if style.caption == "on":
        shared = f" · {format_range(scale)}" if scale else ""
        draw_caption(picture, title + shared)
        return picture
    bar = ColorBar(look.colormap, *scale) if scale else None
    return add_caption(picture, title, bar)


def _name_concepts(explanation: ClassExplanation) -> list[str]:
    """The name of each concept, with its share of all values."""
    total = sum(float(panel.values.sum()) for panel in explanation.part_maps)
    return [f"{p.name}  {float(p.values.sum()) / total:.0%}" for p in explanation.part_maps]


def _format_title(result: Result, explanation: ClassExplanation) -> str:
    if not result.is_class_specific:
        return f"{result.method_name} (the same for every class)"
    return " · ".join(filter(None, (format_class_title(explanation), result.method_name)))


def format_class_title(explanation: ClassExplanation) -> str:
    """The class and its score for a picture; empty without a class."""
    return format_title(format_class(explanation), explanation.score, explanation.score_kind)


def format_class(explanation: ClassExplanation) -> str:
    """The class for a picture; its index if no font has the characters of its name."""
    label = explanation.class_label
    return label if can_draw_text(label) else f"class {explanation.class_index}"


def encode_image(image: Image.Image, image_format: str) -> bytes:
    """The bytes of a picture file. Raises OutputError if the format cannot hold the picture."""
    return _encode(image, image_format, IMAGE_ENCODINGS[image_format])


def encode_sheet(image: Image.Image, image_format: str) -> bytes:
    """The bytes of a sheet of pictures and text. Raises OutputError."""
    return _encode(image, image_format, SHEET_ENCODINGS[image_format])


def _encode(image: Image.Image, image_format: str, encoding: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, **encoding)
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"a {size} picture cannot be saved as {image_format}: {error}") from None
    return buffer.getvalue()


def encode_map(image_map: ImageMap) -> bytes:
    """A map as a grey PNG: 0 is its minimum, 255 its maximum, which text chunks name."""
    chunks = PngInfo()
    chunks.add_text("status", image_map.status)
    if image_map.status == "ok":
        chunks.add_text("minimum", repr(float(image_map.values.min())))
        chunks.add_text("maximum", repr(float(image_map.values.max())))
    levels = np.rint(image_map.normalized * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()
