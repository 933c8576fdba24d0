"""The files of a run: one function an output kind, atomic writes, names that mirror the input tree.

Knows nothing of methods.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.core.errors import OutputError
from camcli.core.geometry import Float32Array, View, crop_visible_map, map_to_original
from camcli.core.types import Explanation, ImageMap, Result
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
from camcli.io.files import format_explanation_slug, shorten_stem, write_file
from camcli.io.jsonl import to_json_line
from camcli.io.results import explanation_to_json

GRID_COLUMNS = 7  # pictures a row in a grid

STATUS_CAPTIONS = {
    "constant": "the map is the same everywhere",
    "zero_gradient": "the gradient is zero here",
    "non_finite": "NaN or infinity in the map",
}
IMAGE_ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 90},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 88},
}


@dataclass(frozen=True, slots=True)
class DrawingStyle:
    """How pictures look, and the model's input size (H, W) at which maps are placed."""

    input_size: tuple[int, int]
    colormap: str = "jet"
    alpha: float = 0.5
    image_format: str = "jpg"
    with_boxes: bool = True


def _format_title(result: Result, explanation: Explanation) -> str:
    return f"{explanation.class_label} {explanation.score:.2f} · {result.method_name}"


def _encode_overlay(
    result: Result, explanation: Explanation, style: DrawingStyle
) -> tuple[str, bytes]:
    picture = draw_explanation(result, explanation, result.sample.image, result.sample.view, style)
    if style.with_boxes:
        draw_boxes(picture, explanation.boxes)
    draw_caption(picture, _format_title(result, explanation))
    return _encode_image(picture, style.image_format)


def _encode_heatmap(
    result: Result, explanation: Explanation, style: DrawingStyle
) -> tuple[str, bytes]:
    if result.has_concepts:
        blank = Image.new("RGB", result.sample.image.size, (255, 255, 255))
        return _encode_image(
            draw_explanation(result, explanation, blank, result.sample.view, style), "png"
        )
    part = _find_visible_map(explanation.fused_map, result.sample.view, style)
    if part is None:
        return _encode_image(
            draw_missing_map(result.sample.image, STATUS_CAPTIONS[explanation.fused_map.status]),
            "png",
        )
    return _encode_image(draw_heatmap(part, result.sample.view, style.colormap), "png")


def _encode_grid(
    result: Result, explanation: Explanation, style: DrawingStyle
) -> tuple[str, bytes]:
    """image | layers | fused; or image | parts | result with the layers in rows below."""
    small = result.sample.image.resize(compute_cell_size(*result.sample.image.size))
    view = result.sample.view.to_image_size(*small.size)

    def cell(panel: ImageMap) -> GridCell:
        return GridCell(
            result.map_captions.get(panel.name, panel.name), draw_map(small, panel, view, style)
        )

    layers = [cell(panel) for panel in explanation.layer_maps]
    if result.has_concepts:
        together = GridCell("all", draw_explanation(result, explanation, small, view, style))
        rows = _wrap_cells(
            [GridCell("image", small), *map(cell, explanation.part_maps), together], GRID_COLUMNS
        )
        return _encode_image(
            draw_grid(_format_title(result, explanation), rows), style.image_format
        )
    fused = [] if explanation.fused_map in explanation.layer_maps else [cell(explanation.fused_map)]
    if explanation.part_maps:
        rows = [
            [GridCell("image", small), *map(cell, explanation.part_maps), *fused],
            *_wrap_cells(layers, 6),
        ]
    else:
        rows = _wrap_cells([GridCell("image", small), *layers, *fused], GRID_COLUMNS)
    return _encode_image(draw_grid(_format_title(result, explanation), rows), style.image_format)


def _encode_boxes(
    result: Result, explanation: Explanation, style: DrawingStyle
) -> tuple[str, bytes]:
    view = result.sample.view
    document = {
        "image": result.sample.source.name,
        "width": view.image_width,
        "height": view.image_height,
        "method": result.method_name,
        "threshold": result.threshold,
        **explanation_to_json(explanation),
    }
    return "json", f"{to_json_line(document)}\n".encode()


OUTPUT_ENCODERS: Mapping[str, Callable[[Result, Explanation, DrawingStyle], tuple[str, bytes]]] = {
    "overlay": _encode_overlay,
    "heatmap": _encode_heatmap,
    "grid": _encode_grid,
    "boxes": _encode_boxes,
}
ARRAY_KIND = "array"


def draw_explanation(
    result: Result, explanation: Explanation, image: Image.Image, view: View, style: DrawingStyle
) -> Image.Image:
    """The map over a picture; of concepts all of them, each in its colour, with a legend."""
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
    """A map over its picture; or the picture saying why there is no map."""
    part = _find_visible_map(image_map, view, style)
    if part is None:
        blank = "constant" if image_map.status == "ok" else image_map.status
        return draw_missing_map(image, STATUS_CAPTIONS[blank])
    return draw_overlay(image, part, view, style.colormap, style.alpha)


def _find_visible_map(image_map: ImageMap, view: View, style: DrawingStyle) -> Float32Array | None:
    """The visible part of a map, or None where there is nothing to show."""
    part = (
        crop_visible_map(image_map.normalized, view, style.input_size)
        if image_map.visible_part is None
        else image_map.visible_part
    )
    return part if image_map.status == "ok" and part.any() else None


def _wrap_cells(cells: list[GridCell], columns: int) -> list[list[GridCell]]:
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def _encode_image(image: Image.Image, image_format: str) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    try:
        image.save(buffer, **IMAGE_ENCODINGS[image_format])
    except (OSError, ValueError) as error:
        size = f"{image.width}x{image.height}"
        raise OutputError(f"a {size} picture cannot be saved as {image_format}: {error}") from None
    return image_format, buffer.getvalue()


def _encode_arrays(result: Result) -> bytes:
    """Raw maps, float32: "{class}/{layer}", the parts of TS-CAM, and "{class}/fused".

    Neither normalised nor resized, but for the fusion of several layers: that is made of their
    scaled maps at the input's size.
    """
    arrays = {
        f"{shown.class_index}/{panel.name}": panel.values
        for shown in result.explanations
        for panel in (*shown.layer_maps, *shown.part_maps, replace(shown.fused_map, name="fused"))
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def write_result(
    result: Result, kinds: Sequence[str], style: DrawingStyle, output: Path, slugs: Sequence[str]
) -> Result:
    """Write the chosen kinds of file below `output`, and return the result with their names.

    `slugs` has the part of a file name for each class. Raises OutputError.
    """
    stem = shorten_stem(result.sample.source.output_stem)
    tag = f".{result.file_tag}" if result.file_tag else ""
    files: list[dict[str, str]] = []
    for shown in result.explanations:
        written = {}
        for kind in (k for k in kinds if k in OUTPUT_ENCODERS):
            suffix, content = OUTPUT_ENCODERS[kind](result, shown, style)
            written[kind] = f"{stem}.{format_explanation_slug(shown, slugs)}{tag}.{kind}.{suffix}"
            write_file(output / written[kind], content)
        files.append(written | ({ARRAY_KIND: f"{stem}{tag}.npz"} if ARRAY_KIND in kinds else {}))
    if ARRAY_KIND in kinds:
        write_file(output / f"{stem}{tag}.npz", _encode_arrays(result))
    return replace(result, output_files=tuple(files))
