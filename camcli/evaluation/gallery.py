"""Galleries: the images of a row with the worst, median and best IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL.Image import Image

from camcli.core.geometry import View
from camcli.core.types import Box
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.predictions import EvaluationRow, MapSource, Prediction
from camcli.evaluation.scoreboard import choose_examples
from camcli.evaluation.scores import load_canvas_annotation
from camcli.io.drawing import draw_boxes, draw_overlay, scale_boxes
from camcli.io.grids import GridCell, compute_cell_size, draw_grid
from camcli.io.map_looks import OVERLAY_COLORMAP
from camcli.io.pictures import encode_sheet
from camcli.io.writers import DEFAULT_ALPHA

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
    class_names = source.labels.names
    outcomes = source.iter_predictions(
        [sample for sample in samples if sample.index in chosen],
        [row],
        lambda prediction: (prediction.sample.index, create_gallery_cell(prediction, class_names)),
    )
    found = dict(outcome for outcome in outcomes if not isinstance(outcome, Problem))
    cells = [
        [replace(found[i], label=f"{name} · IoU {ious[i]:.2f}") for i in indices if i in found]
        for name, indices in groups.items()
    ]
    lines = [line for line in cells if line]
    if all(len(line) == 1 for line in lines):  # a few images: side by side
        lines = [[cell for line in lines for cell in line]]
    return encode_sheet(draw_grid(format_gallery_title(row), lines), "jpg")


def format_gallery_title(row: EvaluationRow) -> str:
    """The method and the model, then the threshold and what the boxes are."""
    return (
        f"{row.name} · {row.model}\n"
        f"threshold {row.threshold} · ground truth dashed green, predicted box white"
    )


def create_gallery_cell(prediction: Prediction, class_names: Sequence[str]) -> GridCell:
    """The picture of a prediction, with its file, its class and the rank of the class."""
    sample, rank = prediction.sample, prediction.rank
    ranked = "" if rank is None else " · predicted" if rank == 0 else f" · ranked {rank + 1}"
    file_name = sample.annotation.image_name.rpartition("/")[2]
    note = f"{file_name}\n{class_names[sample.class_index]}{ranked}"
    return GridCell("", draw_prediction(prediction), note)


def encode_boxed_picture(prediction: Prediction, iou: float, class_name: str) -> bytes:
    """Draw one prediction under its class, IoU and file name, as a JPEG file."""
    file_name = prediction.sample.annotation.image_name.rpartition("/")[2]
    cell = GridCell(file_name, draw_prediction(prediction))
    return encode_sheet(draw_grid(f"IoU {iou:.2f} · {class_name}", [[cell]]), "jpg")


def draw_prediction(prediction: Prediction) -> Image:
    """Draw the map over its image, with dashed green ground-truth boxes and its own in white."""
    size = prediction.image.size
    width, height = compute_cell_size(*size)
    shown = draw_overlay(
        prediction.image.resize((width, height)).convert("RGB"),
        prediction.heatmap.astype("float32"),
        View.from_whole_image(width, height),
        OVERLAY_COLORMAP,
        DEFAULT_ALPHA,
    )
    annotation, _ = load_canvas_annotation(prediction.sample.annotation, size)
    true_boxes = [
        Box(round(x1), round(y1), round(x2), round(y2), 0.0)
        for x1, y1, x2, y2 in (annotation.image_boxes.tolist() if annotation else [])
    ]
    draw_boxes(shown, scale_boxes(prediction.boxes, size, shown.size))
    draw_boxes(shown, scale_boxes(true_boxes, size, shown.size), GROUND_TRUTH_COLOR, dashed=True)
    return shown
