"""What one map of one image is worth, as counts that can be summed over images.

The canvas is 224 x 224, the whole image squashed, as the protocols have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camcli.core.boxes import cut
from camcli.core.types import Box
from camcli.evaluation.datasets.annotations import Placed
from camcli.evaluation.metrics.component_tree import LEVELS
from camcli.evaluation.metrics.iou import SPLITS, iou, split
from camcli.evaluation.metrics.regions import Regions, find, quantise

SIDE = 224
OVERLAPS = (0.3, 0.5, 0.7)  # MaxBoxAccV2's
CURVE = np.linspace(0, 1, 101)  # IoU at which accuracy is drawn
BINS = np.append(np.arange(0, 1, 0.001), [1.0, 2.0])  # PxAP's: the last holds the maximum alone
TOLERANCE = 15  # pixels of the image, as TorchRay has it

Counts = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Heat:
    """A map on the canvas (S, S) in [0, 1], and its regions."""

    values: NDArray[np.floating]
    regions: Regions


def heat(values: NDArray[np.floating]) -> Heat:
    """A map with its regions, found once for all that is asked of them."""
    return Heat(values, find(quantise(values)))


@dataclass(frozen=True, slots=True)
class Score:
    """One map's counts, and what of them is told of the image itself."""

    counts: Counts
    iou: float
    pointed: bool
    split: str | None


def score(
    found: Heat,
    truth: Placed,
    threshold: str | float,
    rank: int | None,
    boxes: Sequence[Box] | None = None,
) -> Score:
    """Everything that is measured of one map; without a `rank` nothing is said of the class.

    `boxes` are those that `camcli explain` writes, in pixels of the image, if it would write any.
    """
    box = box_at(found, threshold)
    overlap = float(iou(box[None], truth.fitted).max())
    distance = _distance(found.values, truth)
    energy = float(found.values.sum(dtype=np.float64))
    inside = float(found.values[_covered(truth)].sum(dtype=np.float64))
    counts: dict[str, NDArray[np.float64] | float] = {
        "images": 1.0,
        "gt_known": float(overlap >= 0.5),
        "curve": (overlap >= CURVE).astype(np.float64),
        **at_all_levels(found.regions, truth),
        "pointing": float(distance < TOLERANCE),
        "pointing_strict": float(distance == 0),
        "energy": inside / energy if energy else 0.0,
        **_pixels(found.values, truth),
    }
    if boxes is not None:
        counts["box_acc"] = float(_box_overlap(boxes, truth) >= 0.5)
    why = None
    if rank is not None:
        why = split(box, truth.fitted, rank)
        counts |= {
            "cls_1": float(rank < 1),
            "cls_5": float(rank < 5),
            "loc_1": float(rank < 1 and overlap > 0.5),
            "loc_5": float(rank < 5 and overlap > 0.5),
            "split": np.array([why == name for name in SPLITS], np.float64),
        }
    whole = {name: np.asarray(value, np.float64) for name, value in counts.items()}
    return Score(whole, overlap, distance < TOLERANCE, why)


def box_at(found: Heat, threshold: str | float) -> NDArray[np.int16]:
    """TS-CAM's box at a threshold: x, y, x + w, y + h of the largest region of q > int(255 t)."""
    level = int(cut(found.values.astype(np.float32), threshold) * 255)
    box = found.regions.largest[level] if level < LEVELS else np.zeros(4, np.int16)
    return box if box.any() else np.array([0, 0, 1, 1], np.int16)


def at_all_levels(regions: Regions, truth: Placed) -> dict[str, NDArray[np.float64]]:
    """Where the boxes of each level meet the truth: `single` (255,), `multi` (3, 255).

    wsolevaluation's: corners clipped to S - 1, IoU >= 0.3, 0.5, 0.7, [0, 0, 0, 0] for no box.
    """
    largest = np.minimum(regions.largest, SIDE - 1)
    of_largest = iou(largest, truth.truncated).max(axis=1)
    of_any = np.full(LEVELS, iou(np.zeros((1, 4)), truth.truncated).max())
    of_any[regions.level] = 0
    of_every = iou(np.minimum(regions.every, SIDE - 1), truth.truncated).max(axis=1)
    np.maximum.at(of_any, regions.level, of_every)
    return {
        "single": (of_largest >= 0.5).astype(np.float64),
        "multi": (of_any >= np.array(OVERLAPS)[:, None]).astype(np.float64),
    }


def _distance(values: NDArray[np.floating], truth: Placed) -> float:
    """From the map's maximum to the nearest pixel of the truth, both pixels of the image."""
    if not values.any():
        return np.inf
    row, column = np.unravel_index(values.argmax(), values.shape)
    to_image = np.array(truth.size) / SIDE
    at = np.floor((np.array([column, row]) + 0.5) * to_image)
    if truth.foreground is not None:
        rows, columns = np.nonzero(truth.foreground)
        pixels = np.floor((np.stack([columns, rows], axis=1) + 0.5) * to_image)
        return float(np.hypot(*(pixels - at).T).min())
    first, last = np.floor(truth.boxes[:, :2]), np.ceil(truth.boxes[:, 2:]) - 1
    return float(np.hypot(*np.maximum(np.maximum(first - at, at - last), 0).T).min())


def _covered(truth: Placed) -> NDArray[np.bool_]:
    """The pixels of the canvas that the boxes cover, at least one of each."""
    covered = np.zeros((SIDE, SIDE), bool)
    corners = np.rint(truth.boxes * SIDE / [*truth.size, *truth.size]).astype(int)
    for x1, y1, x2, y2 in corners:
        x, y = min(x1, SIDE - 1), min(y1, SIDE - 1)
        covered[y : max(y2, y + 1), x : max(x2, x + 1)] = True
    return covered


def _box_overlap(boxes: Sequence[Box], truth: Placed) -> float:
    if not boxes:
        return 0.0
    corners = np.array([[b.x1, b.y1, b.x2, b.y2] for b in boxes], np.float64)
    return float(iou(corners, truth.boxes, pixel=0).max())


def _pixels(values: NDArray[np.floating], truth: Placed) -> dict[str, NDArray[np.float64]]:
    """PxAP's histograms of the map over the pixels of masks and of what is not masked (2, 1001)."""
    if truth.foreground is None or truth.background is None:
        return {}
    picked = (truth.foreground, truth.background)
    return {"pixels": np.stack([np.histogram(values[p], BINS)[0] for p in picked]).astype(float)}
