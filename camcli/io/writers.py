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
from camcli.core.geometry import Floats, View, to_original, visible
from camcli.core.types import Explanation, Panel, Result
from camcli.io import jsonl, results
from camcli.io.drawing import (
    Cell,
    caption,
    cell_size,
    concepts,
    draw_boxes,
    grid,
    heatmap,
    no_answer,
    overlay,
)
from camcli.io.files import safe_stem, slug, write

COLUMNS = 7  # pictures a row in a grid

REASONS = {
    "constant": "the map is the same everywhere",
    "zero_gradient": "the gradient is zero here",
    "non_finite": "NaN or infinity in the map",
}
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 90},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 88},
}


@dataclass(frozen=True, slots=True)
class Style:
    """How pictures look, and the model's input size (H, W) at which maps are placed."""

    size: tuple[int, int]
    colormap: str = "jet"
    alpha: float = 0.5
    image_format: str = "jpg"
    boxed: bool = True


def _title(result: Result, shown: Explanation) -> str:
    return f"{shown.label} {shown.score:.2f} · {result.method}"


def _overlay(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    picture = answer(result, shown, result.sample.picture, result.sample.view, style)
    if style.boxed:
        draw_boxes(picture, shown.boxes)
    caption(picture, _title(result, shown))
    return _picture(picture, style.image_format)


def _heatmap(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    if result.concepts:
        blank = Image.new("RGB", result.sample.picture.size, (255, 255, 255))
        return _picture(answer(result, shown, blank, result.sample.view, style), "png")
    part = _seen(shown.fused, result.sample.view, style)
    if part is None:
        return _picture(no_answer(result.sample.picture, REASONS[shown.fused.status]), "png")
    return _picture(heatmap(part, result.sample.view, style.colormap), "png")


def _grid(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    """image | layers | fused; or image | parts | result with the layers in rows below."""
    small = result.sample.picture.resize(cell_size(*result.sample.picture.size))
    view = result.sample.view.scaled(*small.size)

    def cell(panel: Panel) -> Cell:
        return Cell(result.labels.get(panel.name, panel.name), over(small, panel, view, style))

    layers = [cell(panel) for panel in shown.layers]
    if result.concepts:
        together = Cell("all", answer(result, shown, small, view, style))
        rows = _wrapped([Cell("image", small), *map(cell, shown.parts), together], COLUMNS)
        return _picture(grid(_title(result, shown), rows), style.image_format)
    fused = [] if shown.fused in shown.layers else [cell(shown.fused)]
    if shown.parts:
        rows = [[Cell("image", small), *map(cell, shown.parts), *fused], *_wrapped(layers, 6)]
    else:
        rows = _wrapped([Cell("image", small), *layers, *fused], COLUMNS)
    return _picture(grid(_title(result, shown), rows), style.image_format)


def _boxes(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    view = result.sample.view
    document = {
        "image": result.sample.source.name,
        "width": view.width,
        "height": view.height,
        "method": result.method,
        "threshold": result.threshold,
        **results.describe_class(shown),
    }
    return "json", f"{jsonl.to_json(document)}\n".encode()


KINDS: Mapping[str, Callable[[Result, Explanation, Style], tuple[str, bytes]]] = {
    "overlay": _overlay,
    "heatmap": _heatmap,
    "grid": _grid,
    "boxes": _boxes,
}
ARRAY = "array"


def answer(
    result: Result, shown: Explanation, picture: Image.Image, view: View, style: Style
) -> Image.Image:
    """The map over a picture; of concepts all of them, each in its colour, with a legend."""
    if not result.concepts or shown.fused.status != "ok":
        return over(picture, shown.fused, view, style)
    strongest = max(float(panel.values.max()) for panel in shown.parts)
    total = sum(float(panel.values.sum()) for panel in shown.parts)
    heats = [
        to_original(part, view) * (float(panel.values.max()) / strongest)
        for panel in shown.parts
        for part in [visible(panel.shown, view, style.size)]
    ]
    names = [f"{p.name}  {float(p.values.sum()) / total:.0%}" for p in shown.parts]
    return concepts(picture, heats, names)


def over(picture: Image.Image, panel: Panel, view: View, style: Style) -> Image.Image:
    """A map over its picture; or the picture saying why there is no map."""
    part = _seen(panel, view, style)
    if part is None:
        blank = "constant" if panel.status == "ok" else panel.status
        return no_answer(picture, REASONS[blank])
    return overlay(picture, part, view, style.colormap, style.alpha)


def _seen(panel: Panel, view: View, style: Style) -> Floats | None:
    """The visible part of a map, or None where there is nothing to show."""
    part = visible(panel.shown, view, style.size) if panel.part is None else panel.part
    return part if panel.status == "ok" and part.any() else None


def _wrapped(cells: list[Cell], columns: int) -> list[list[Cell]]:
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def _picture(picture: Image.Image, image_format: str) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, **ENCODINGS[image_format])
    except (OSError, ValueError) as error:
        size = f"{picture.width}x{picture.height}"
        raise OutputError(f"a {size} picture cannot be saved as {image_format}: {error}") from None
    return image_format, buffer.getvalue()


def _array(result: Result) -> bytes:
    """Raw maps, float32: "{class}/{layer}", the parts of TS-CAM, and "{class}/fused".

    Neither normalised nor resized, but for the fusion of several layers: that is made of their
    scaled maps at the input's size.
    """
    arrays = {
        f"{shown.class_index}/{panel.name}": panel.values
        for shown in result.explanations
        for panel in (*shown.layers, *shown.parts, replace(shown.fused, name="fused"))
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def save(
    result: Result, kinds: Sequence[str], style: Style, output: Path, slugs: Sequence[str]
) -> Result:
    """Write the chosen kinds of file below `output`, and return the result with their names.

    `slugs` has the part of a file name for each class. Raises OutputError.
    """
    stem = safe_stem(result.sample.source.stem)
    tag = f".{result.tag}" if result.tag else ""
    files: list[dict[str, str]] = []
    for shown in result.explanations:
        written = {}
        for kind in (k for k in kinds if k in KINDS):
            suffix, content = KINDS[kind](result, shown, style)
            written[kind] = f"{stem}.{slug(shown, slugs)}{tag}.{kind}.{suffix}"
            write(output / written[kind], content)
        files.append(written | ({ARRAY: f"{stem}{tag}.npz"} if ARRAY in kinds else {}))
    if ARRAY in kinds:
        write(output / f"{stem}{tag}.npz", _array(result))
    return replace(result, files=tuple(files))
