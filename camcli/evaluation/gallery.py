"""Galleries: the images of a row with the worst, median and best IoU."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from PIL.Image import Image

from camcli.core.geometry import View
from camcli.core.types import Box
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.predictions import EvaluationRow, MapSource, Prediction
from camcli.evaluation.scoreboard import choose_examples
from camcli.evaluation.scores import load_canvas_annotation
from camcli.io.drawing import (
    GridCell,
    compute_cell_size,
    draw_boxes,
    draw_grid,
    draw_overlay,
    letterbox_image,
)

GROUND_TRUTH_COLOR = (60, 220, 90)
EXAMPLES_PER_GROUP = 5


def draw_examples(
    source: MapSource,
    samples: Sequence[EvaluationSample],
    row: EvaluationRow,
    ious: Mapping[int, float],
) -> bytes:
    """Draw the samples of a row with the worst, median and best IoU, as one JPEG file.

    `ious` has the IoU of each sample by its index. camcli computes their maps again.
    """
    groups = choose_examples(ious, EXAMPLES_PER_GROUP)
    chosen = {index for indices in groups.values() for index in indices}
    outcomes = source.iter_predictions(
        [sample for sample in samples if sample.index in chosen],
        [row],
        lambda prediction: (prediction.sample.index, draw_prediction(prediction)),
    )
    drawn = dict(outcome for outcome in outcomes if not isinstance(outcome, Problem))
    cells = [
        [GridCell(f"{name} · IoU {ious[i]:.2f}", drawn[i]) for i in indices if i in drawn]
        for name, indices in groups.items()
    ]
    title = f"{row.name} · {row.model} · ground truth green, box white"
    buffer = io.BytesIO()
    draw_grid(title, [line for line in cells if line]).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def encode_boxed_picture(prediction: Prediction, iou: float, class_name: str) -> bytes:
    """Draw one prediction under its class, IoU and file name, as a JPEG file."""
    file_name = prediction.sample.annotation.image_name.rpartition("/")[2]
    cell = GridCell(file_name, draw_prediction(prediction))
    buffer = io.BytesIO()
    draw_grid(f"IoU {iou:.2f} · {class_name}", [[cell]]).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def draw_prediction(prediction: Prediction) -> Image:
    """Draw the map over its image, with ground-truth boxes in green and its own in white."""
    size = prediction.image.size
    width, height = compute_cell_size(*size)
    shown = draw_overlay(
        prediction.image.resize((width, height)).convert("RGB"),
        prediction.heatmap.astype("float32"),
        View.from_whole_image(width, height),
        "jet",
        0.45,
    )
    annotation, _ = load_canvas_annotation(prediction.sample.annotation, size)
    true_boxes = annotation.image_boxes.tolist() if annotation else []
    boxes = [(b.x1, b.y1, b.x2, b.y2) for b in prediction.boxes]
    draw_boxes(shown, [_scale_box(box, size, shown.size) for box in true_boxes], GROUND_TRUTH_COLOR)
    draw_boxes(shown, [_scale_box(box, size, shown.size) for box in boxes])
    return letterbox_image(shown)


def _scale_box(corners: Sequence[float], size: tuple[int, int], shown: tuple[int, int]) -> Box:
    across, down = shown[0] / size[0], shown[1] / size[1]
    x1, y1, x2, y2 = corners
    return Box(round(x1 * across), round(y1 * down), round(x2 * across), round(y2 * down), 0)
