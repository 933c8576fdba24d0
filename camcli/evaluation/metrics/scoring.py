"""What one map of one image is worth, as counts that can be summed over images.

The canvas is 224 x 224, the whole image squashed, as the protocols have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camcli.core.boxes import compute_cutoff
from camcli.core.types import Box
from camcli.evaluation.datasets.annotations import CanvasAnnotation
from camcli.evaluation.metrics.component_tree import LEVEL_COUNT
from camcli.evaluation.metrics.iou import ERROR_TYPES, classify_error, iou
from camcli.evaluation.metrics.regions import Regions, find_regions, quantize_map

CANVAS_SIDE = 224
MAX_BOX_ACC_V2_IOUS = (0.3, 0.5, 0.7)  # MaxBoxAccV2's
IOU_CURVE_LEVELS = np.linspace(0, 1, 101)  # IoU at which accuracy is drawn
PXAP_BIN_EDGES = np.append(
    np.arange(0, 1, 0.001), [1.0, 2.0]
)  # PxAP's: the last holds the maximum alone
POINTING_TOLERANCE_PIXELS = 15  # pixels of the image, as TorchRay has it

MetricCounts = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class CanvasMap:
    """A map on the canvas (S, S) in [0, 1], and its regions."""

    values: NDArray[np.floating]
    regions: Regions


def create_canvas_map(values: NDArray[np.floating]) -> CanvasMap:
    """A map with its regions, found once for all that is asked of them."""
    return CanvasMap(values, find_regions(quantize_map(values)))


@dataclass(frozen=True, slots=True)
class MapScore:
    """One map's counts, and what of them is told of the image itself."""

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
    """Everything that is measured of one map; without a `rank` nothing is said of the class.

    `boxes` are those that `camcli explain` writes, in pixels of the image, if it would write any.
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
    why = None
    if rank is not None:
        why = classify_error(box, annotation.clipped_boxes, rank)
        counts |= {
            "cls_1": float(rank < 1),
            "cls_5": float(rank < 5),
            "loc_1": float(rank < 1 and overlap > 0.5),
            "loc_5": float(rank < 5 and overlap > 0.5),
            "split": np.array([why == name for name in ERROR_TYPES], np.float64),
        }
    whole = {name: np.asarray(value, np.float64) for name, value in counts.items()}
    return MapScore(whole, overlap, distance < POINTING_TOLERANCE_PIXELS, why)


def find_box_at_threshold(canvas_map: CanvasMap, threshold: str | float) -> NDArray[np.int16]:
    """TS-CAM's box at a threshold: x, y, x + w, y + h of the largest region of q > int(255 t)."""
    level = int(compute_cutoff(canvas_map.values.astype(np.float32), threshold) * 255)
    box = canvas_map.regions.largest_boxes[level] if level < LEVEL_COUNT else np.zeros(4, np.int16)
    return box if box.any() else np.array([0, 0, 1, 1], np.int16)


def compute_hits_by_level(
    regions: Regions, annotation: CanvasAnnotation
) -> dict[str, NDArray[np.float64]]:
    """Where the boxes of each level meet the truth: `single` (255,), `multi` (3, 255).

    wsolevaluation's: corners clipped to S - 1, IoU >= 0.3, 0.5, 0.7, [0, 0, 0, 0] for no box.
    """
    largest = np.minimum(regions.largest_boxes, CANVAS_SIDE - 1)
    of_largest = iou(largest, annotation.scaled_boxes).max(axis=1)
    of_any = np.full(LEVEL_COUNT, iou(np.zeros((1, 4)), annotation.scaled_boxes).max())
    of_any[regions.box_levels] = 0
    of_every = iou(np.minimum(regions.all_boxes, CANVAS_SIDE - 1), annotation.scaled_boxes).max(
        axis=1
    )
    np.maximum.at(of_any, regions.box_levels, of_every)
    return {
        "single": (of_largest >= 0.5).astype(np.float64),
        "multi": (of_any >= np.array(MAX_BOX_ACC_V2_IOUS)[:, None]).astype(np.float64),
    }


def _compute_pointing_distance(values: NDArray[np.floating], truth: CanvasAnnotation) -> float:
    """From the map's maximum to the nearest pixel of the truth, both pixels of the image."""
    if not values.any():
        return np.inf
    row, column = np.unravel_index(values.argmax(), values.shape)
    to_image = np.array(truth.image_size) / CANVAS_SIDE
    at = np.floor((np.array([column, row]) + 0.5) * to_image)
    if truth.foreground is not None:
        rows, columns = np.nonzero(truth.foreground)
        pixels = np.floor((np.stack([columns, rows], axis=1) + 0.5) * to_image)
        return float(np.hypot(*(pixels - at).T).min())
    first, last = np.floor(truth.image_boxes[:, :2]), np.ceil(truth.image_boxes[:, 2:]) - 1
    return float(np.hypot(*np.maximum(np.maximum(first - at, at - last), 0).T).min())


def _boxes_to_mask(truth: CanvasAnnotation) -> NDArray[np.bool_]:
    """The pixels of the canvas that the boxes cover, at least one of each."""
    covered = np.zeros((CANVAS_SIDE, CANVAS_SIDE), bool)
    corners = np.rint(
        truth.image_boxes * CANVAS_SIDE / [*truth.image_size, *truth.image_size]
    ).astype(int)
    for x1, y1, x2, y2 in corners:
        x, y = min(x1, CANVAS_SIDE - 1), min(y1, CANVAS_SIDE - 1)
        covered[y : max(y2, y + 1), x : max(x2, x + 1)] = True
    return covered


def _compute_best_iou(boxes: Sequence[Box], truth: CanvasAnnotation) -> float:
    if not boxes:
        return 0.0
    corners = np.array([[b.x1, b.y1, b.x2, b.y2] for b in boxes], np.float64)
    return float(iou(corners, truth.image_boxes, pixel=0).max())


def _compute_pixel_histograms(
    values: NDArray[np.floating], truth: CanvasAnnotation
) -> dict[str, NDArray[np.float64]]:
    """PxAP's histograms of the map over the pixels of masks and of what is not masked (2, 1001)."""
    if truth.foreground is None or truth.background is None:
        return {}
    picked = (truth.foreground, truth.background)
    return {
        "pixels": np.stack([np.histogram(values[p], PXAP_BIN_EDGES)[0] for p in picked]).astype(
            float
        )
    }
