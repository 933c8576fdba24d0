"""The best, the median and the worst images of a row, with truth and box: why a number is so."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL.Image import Image

from camcli.core.geometry import View
from camcli.core.types import Box
from camcli.evaluation.localization import load_canvas_annotation
from camcli.evaluation.predictions import Prediction
from camcli.io.drawing import (
    GridCell,
    compute_cell_size,
    draw_boxes,
    draw_grid,
    draw_overlay,
    letterbox_image,
)

GROUND_TRUTH_COLOR = (60, 220, 90)


def draw_prediction(prediction: Prediction) -> Image:
    """The map over its image, the truth in green and the box of `camcli explain` in white."""
    width, height = compute_cell_size(*prediction.image.size)
    small = prediction.image.resize((width, height)).convert("RGB")
    shown = draw_overlay(
        small,
        prediction.heatmap.astype("float32"),
        View.from_whole_image(width, height),
        "jet",
        0.45,
    )
    size = prediction.image.size
    placed, _ = load_canvas_annotation(prediction.sample.annotation, size)
    truths = placed.image_boxes.tolist() if placed else []
    draw_boxes(
        shown, [_scale_box(corners, size, shown.size) for corners in truths], GROUND_TRUTH_COLOR
    )
    found = [(b.x1, b.y1, b.x2, b.y2) for b in prediction.boxes]
    draw_boxes(shown, [_scale_box(corners, size, shown.size) for corners in found])
    return letterbox_image(shown)


def _scale_box(corners: Sequence[float], size: tuple[int, int], shown: tuple[int, int]) -> Box:
    across, down = shown[0] / size[0], shown[1] / size[1]
    x1, y1, x2, y2 = corners
    return Box(round(x1 * across), round(y1 * down), round(x2 * across), round(y2 * down), 0)


def draw_gallery(title: str, rows: Mapping[str, Sequence[tuple[str, Image]]]) -> bytes:
    """Rows of captioned pictures as a JPEG file."""
    cells = [
        [GridCell(f"{name} · {caption}", shown) for caption, shown in row]
        for name, row in rows.items()
        if row
    ]
    buffer = io.BytesIO()
    draw_grid(title, cells).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
