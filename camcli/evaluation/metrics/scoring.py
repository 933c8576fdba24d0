"""Scores of one map of one image, as counts that can be summed over images.

As in the protocols, the canvas is 224 x 224 and shows the whole image, squashed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camcli.core.box_iou import iou
from camcli.core.boxes import compute_cutoff
from camcli.core.types import Box
from camcli.evaluation.datasets.annotations import CanvasAnnotation
from camcli.evaluation.metrics.component_tree import LEVEL_COUNT
from camcli.evaluation.metrics.iou import ERROR_TYPES, ErrorType, classify_error
from camcli.evaluation.metrics.regions import Regions, find_regions, quantize_map

CANVAS_SIDE = 224
MAX_BOX_ACC_V2_IOUS = (0.3, 0.5, 0.7)
IOU_CURVE_LEVELS = np.linspace(0, 1, 101)
# As in wsolevaluation; the last bin holds only the maximum.
PXAP_BIN_EDGES = np.append(np.arange(0, 1, 0.001), [1.0, 2.0])
POINTING_TOLERANCE_PIXELS = 15  # pixels of the image, as in TorchRay

MetricCounts = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class CanvasMap:
    """A map on the canvas (S, S) in [0, 1], and its regions."""

    values: NDArray[np.floating]
    regions: Regions


def create_canvas_map(values: NDArray[np.floating]) -> CanvasMap:
    """A map with its regions, which several metrics share."""
    return CanvasMap(values, find_regions(quantize_map(values)))


@dataclass(frozen=True, slots=True)
class MapScore:
    """The counts of one map, and the values that images.jsonl lists."""

    counts: MetricCounts
    iou: float
    is_pointing_hit: bool
    error_type: str | None


def score_map(
    canvas_map: CanvasMap,
    annotation: CanvasAnnotation,
    threshold: str | float,
    rank: int | None,
    boxes: Sequence[Box] | None = None,
) -> MapScore:
    """Compute all counts of one map; without `rank`, no metric of the predicted class.

    `boxes` are those that `camcli explain` writes, in pixels of the image; None for baselines.
    """
    box = find_box_at_threshold(canvas_map, threshold)
    overlap = float(iou(box[None], annotation.clipped_boxes).max())
    distance = _compute_pointing_distance(canvas_map.values, annotation)
    energy = float(canvas_map.values.sum(dtype=np.float64))
    inside = float(canvas_map.values[_boxes_to_mask(annotation)].sum(dtype=np.float64))
    counts: dict[str, NDArray[np.float64] | float] = {
        "images": 1.0,
        "gt_known": float(overlap >= 0.5),
        "curve": (overlap >= IOU_CURVE_LEVELS).astype(np.float64),
        **compute_hits_by_level(canvas_map.regions, annotation),
        "pointing": float(distance < POINTING_TOLERANCE_PIXELS),
        "pointing_strict": float(distance == 0),
        "energy": inside / energy if energy else 0.0,
        **_compute_pixel_histograms(canvas_map.values, annotation),
    }
    if boxes is not None:
        counts["box_acc"] = float(_compute_best_iou(boxes, annotation) >= 0.5)
    error_type = None
    if rank is not None:
        error_type = classify_error(box, annotation.clipped_boxes, rank)
        counts |= _compute_class_counts(rank, overlap, error_type)
    arrays = {name: np.asarray(value, np.float64) for name, value in counts.items()}
    return MapScore(arrays, overlap, distance < POINTING_TOLERANCE_PIXELS, error_type)


def _compute_class_counts(
    rank: int, overlap: float, error_type: ErrorType
) -> dict[str, NDArray[np.float64] | float]:
    """The counts of metrics that depend on the predicted class."""
    return {
        "cls_1": float(rank < 1),
        "cls_5": float(rank < 5),
        "loc_1": float(rank < 1 and overlap > 0.5),
        "loc_5": float(rank < 5 and overlap > 0.5),
        "split": np.array([error_type == name for name in ERROR_TYPES], np.float64),
    }


def find_box_at_threshold(canvas_map: CanvasMap, threshold: str | float) -> NDArray[np.int16]:
    """TS-CAM's box at a threshold t: x, y, x + w, y + h of the largest region of q > int(255 t)."""
    level = int(compute_cutoff(canvas_map.values.astype(np.float32), threshold) * 255)
    box = canvas_map.regions.largest_boxes[level] if level < LEVEL_COUNT else np.zeros(4, np.int16)
    return box if box.any() else np.array([0, 0, 1, 1], np.int16)


def compute_hits_by_level(
    regions: Regions, annotation: CanvasAnnotation
) -> dict[str, NDArray[np.float64]]:
    """Whether the boxes of each level hit a true box: `single` (255,), `multi` (3, 255).

    As in wsolevaluation, corners are clipped to S - 1, and a level without boxes has the box
    [0, 0, 0, 0]. `single` is the largest box at IoU >= 0.5; `multi` any box at 0.3, 0.5 and 0.7.
    """
    largest_boxes, all_boxes = (
        np.minimum(boxes, CANVAS_SIDE - 1) for boxes in (regions.largest_boxes, regions.all_boxes)
    )
    largest_ious, all_ious, empty_iou = (
        iou(boxes, annotation.scaled_boxes).max(axis=1)
        for boxes in (largest_boxes, all_boxes, np.zeros((1, 4)))
    )
    best_ious = np.repeat(empty_iou, LEVEL_COUNT)
    best_ious[regions.box_levels] = 0
    np.maximum.at(best_ious, regions.box_levels, all_ious)
    return {
        "single": (largest_ious >= 0.5).astype(np.float64),
        "multi": (best_ious >= np.array(MAX_BOX_ACC_V2_IOUS)[:, None]).astype(np.float64),
    }


def _compute_pointing_distance(values: NDArray[np.floating], annotation: CanvasAnnotation) -> float:
    """The distance from the map's maximum to the nearest object pixel, in pixels of the image."""
    if not values.any():
        return np.inf
    row, column = np.unravel_index(values.argmax(), values.shape)
    to_image = np.array(annotation.image_size) / CANVAS_SIDE
    at = np.floor((np.array([column, row]) + 0.5) * to_image)
    if annotation.foreground is not None:
        rows, columns = np.nonzero(annotation.foreground)
        pixels = np.floor((np.stack([columns, rows], axis=1) + 0.5) * to_image)
        return float(np.hypot(*(pixels - at).T).min())
    first, last = (
        np.floor(annotation.image_boxes[:, :2]),
        np.ceil(annotation.image_boxes[:, 2:]) - 1,
    )
    return float(np.hypot(*np.maximum(np.maximum(first - at, at - last), 0).T).min())


def _boxes_to_mask(annotation: CanvasAnnotation) -> NDArray[np.bool_]:
    """The pixels of the canvas that the boxes cover; each box covers at least one."""
    covered = np.zeros((CANVAS_SIDE, CANVAS_SIDE), bool)
    corners = np.rint(
        annotation.image_boxes * CANVAS_SIDE / [*annotation.image_size, *annotation.image_size]
    ).astype(int)
    for x1, y1, x2, y2 in corners:
        x, y = min(x1, CANVAS_SIDE - 1), min(y1, CANVAS_SIDE - 1)
        covered[y : max(y2, y + 1), x : max(x2, x + 1)] = True
    return covered


def _compute_best_iou(boxes: Sequence[Box], annotation: CanvasAnnotation) -> float:
    if not boxes:
        return 0.0
    corners = np.array([[b.x1, b.y1, b.x2, b.y2] for b in boxes], np.float64)
    return float(iou(corners, annotation.image_boxes, pixel=0).max())


def _compute_pixel_histograms(
    values: NDArray[np.floating], annotation: CanvasAnnotation
) -> dict[str, NDArray[np.float64]]:
    """Histograms of the map over foreground and background pixels (2, 1001), for PxAP."""
    if annotation.foreground is None or annotation.background is None:
        return {}
    masks = (annotation.foreground, annotation.background)
    counts = [np.histogram(values[mask], PXAP_BIN_EDGES)[0] for mask in masks]
    return {"pixels": np.stack(counts).astype(np.float64)}
