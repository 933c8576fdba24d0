"""Metrics from counts, summed over all images, over two halves, and over bootstrap resamples.

Only sums are kept, so that memory does not grow with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from camcli.evaluation.datasets.annotations import hash_image_name
from camcli.evaluation.metrics.scoring import IOU_CURVE_LEVELS, MetricCounts

SumArrays = Mapping[str, NDArray[np.float64]]  # each (R, ...): all, two halves, resamples
ResampleValues = NDArray[np.float64]

ALL_IMAGES, EVEN_HALF, ODD_HALF, FIRST_RESAMPLE = 0, 1, 2, 3  # rows of the sums
MAX_PENDING_IMAGES = 32  # summed together, by one matrix product


@lru_cache(maxsize=64)  # the rows of an image come one after another
def compute_resample_weights(image: str, resamples: int, seed: int) -> ResampleValues:
    """How often an image counts in each row of the sums (R,).

    A bootstrap resample draws N of N images, so that each counts about Poisson(1) times; drawing
    these counts needs no N (arXiv 1312.5021). They depend on the image's name only: all classes of
    an image share them, and all methods and models use the same resamples and halves.
    """
    generator = np.random.default_rng([seed, hash_image_name(image)])
    half = generator.integers(2)
    drawn = generator.poisson(1.0, resamples)
    return np.array([1, half == 0, half == 1, *drawn], np.float64)


@dataclass(slots=True)
class MetricSums:
    """Sums of counts, with a weight for each image and each row of the sums."""

    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _pending: list[tuple[ResampleValues, MetricCounts]] = field(default_factory=list)

    def add_counts(self, weight: ResampleValues, counts: MetricCounts) -> None:
        """Add the counts of one image."""
        self._pending.append((weight, counts))
        if len(self._pending) == MAX_PENDING_IMAGES:
            self._add_pending()

    @property
    def sums(self) -> SumArrays:
        """The sums so far."""
        self._add_pending()
        return self._sums

    def _add_pending(self) -> None:
        for name in dict.fromkeys(name for _, counts in self._pending for name in counts):
            having = [(weight, counts) for weight, counts in self._pending if name in counts]
            weight = np.stack([w for w, _ in having], axis=1)
            values = np.stack([c[name] for _, c in having])
            shape = values.shape[1:]
            added = (weight @ values.reshape(len(having), -1)).reshape(-1, *shape)
            self._sums[name] = self._sums.get(name, 0) + added
        self._pending.clear()


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: how it is computed from the sums, which counts it needs, and a description."""

    name: str
    count_name: str
    compute: Callable[[SumArrays], ResampleValues]
    description: str
    compute_threshold: Callable[[SumArrays], float] | None = None


def _create_mean(name: str) -> Callable[[SumArrays], ResampleValues]:
    return lambda sums: sums[name] / _count_images(sums)


def _count_images(sums: SumArrays) -> ResampleValues:
    return np.maximum(sums["images"], 1)


def _compute_accuracy(sums: SumArrays, name: str) -> ResampleValues:
    """Accuracy at each level (R, ..., 255)."""
    number = _count_images(sums)
    return sums[name] / number.reshape(-1, *[1] * (sums[name].ndim - 1))


def _create_best_accuracy(name: str) -> Callable[[SumArrays], ResampleValues]:
    """Accuracy at the level that is best on all images, averaged over the IoU thresholds.

    The resamples use the same level. Re-selecting it in every resample would count the selection
    bias twice.
    """

    def compute_best(sums: SumArrays) -> ResampleValues:
        accuracy = _compute_accuracy(sums, name).reshape(
            len(sums["images"]), -1, sums[name].shape[-1]
        )
        level = accuracy[ALL_IMAGES].argmax(axis=-1)
        found: ResampleValues = accuracy[:, np.arange(len(level)), level].mean(axis=1)
        return found

    return compute_best


def _find_best_threshold(sums: SumArrays) -> float:
    return level_to_threshold(int(sums["single"][ALL_IMAGES].argmax()))


def level_to_threshold(level: int) -> float:
    """The smallest multiple t of 0.001 with int(255 t) = level, as wsolevaluation lists them."""
    return float(np.ceil(level / 255 * 1000) / 1000)


def _compute_held_out_accuracy(sums: SumArrays) -> ResampleValues:
    """Accuracy of each half at the level that is best on the other half.

    It estimates the accuracy on new images after tuning the threshold. NaN if a half is empty.
    """
    accuracy, number = _compute_accuracy(sums, "single"), sums["images"]
    right = sum(
        sums["single"][half, accuracy[other].argmax()]
        for half, other in ((EVEN_HALF, ODD_HALF), (ODD_HALF, EVEN_HALF))
    )
    halved = number[EVEN_HALF] > 0 and number[ODD_HALF] > 0
    return np.full(len(accuracy), right / number[ALL_IMAGES] if halved else np.nan)


def _compute_pxap(sums: SumArrays) -> ResampleValues:
    """sum_i P_i (R_i - R_{i-1}) over falling thresholds, with the pixels of all images pooled."""
    true, false = (sums["pixels"][:, i, ::-1].cumsum(axis=1) for i in (0, 1))
    precision = true / np.maximum(true + false, 1)
    with np.errstate(invalid="ignore"):
        recall = true / true[:, -1:]  # NaN for a resample without masks
    found: ResampleValues = (precision * np.diff(recall, axis=1, prepend=0)).sum(axis=1)
    return found


METRICS: tuple[Metric, ...] = (
    Metric("cls_1", "cls_1", _create_mean("cls_1"), "top-1 accuracy"),
    Metric("cls_5", "cls_5", _create_mean("cls_5"), "top-5 accuracy"),
    Metric("loc_1", "loc_1", _create_mean("loc_1"), "top-1 class right and its box's IoU > 0.5"),
    Metric("loc_5", "loc_5", _create_mean("loc_5"), "class among five and its box's IoU > 0.5"),
    Metric(
        "gt_known", "gt_known", _create_mean("gt_known"), "IoU >= 0.5 at the method's threshold"
    ),
    Metric(
        "max_box_acc",
        "single",
        _create_best_accuracy("single"),
        "IoU >= 0.5 at the best threshold",
        _find_best_threshold,
    ),
    Metric(
        "held_out",
        "single",
        _compute_held_out_accuracy,
        "the same, each half at the other half's best threshold",
    ),
    Metric(
        "max_box_acc_v2",
        "multi",
        _create_best_accuracy("multi"),
        "any box; mean of IoU >= 0.3, 0.5, 0.7",
    ),
    Metric("pxap", "pixels", _compute_pxap, "average precision over the pixels of masks"),
    Metric("pointing", "pointing", _create_mean("pointing"), "maximum within 15 px of the object"),
    Metric("pointing_strict", "pointing_strict", _create_mean("pointing_strict"), "maximum on it"),
    Metric("energy", "energy", _create_mean("energy"), "share of the map within the boxes"),
    Metric("box_acc", "box_acc", _create_mean("box_acc"), "explain's own boxes, IoU >= 0.5"),
)


@dataclass(frozen=True, slots=True)
class MetricValue:
    """The value of a metric, its 95 % confidence interval, and the best threshold if it has one."""

    value: float
    low: float | None
    high: float | None
    threshold: float | None = None


def compute_metrics(sums: SumArrays) -> dict[str, MetricValue]:
    """Every metric that can be computed from these sums."""
    found = {m.name: _compute_metric(m, sums) for m in METRICS if m.count_name in sums}
    return {name: metric for name, metric in found.items() if np.isfinite(metric.value)}


def _compute_metric(metric: Metric, sums: SumArrays) -> MetricValue:
    values = metric.compute(sums)
    at = metric.compute_threshold(sums) if metric.compute_threshold else None
    # With few images a resample may be empty.
    drawn = values[FIRST_RESAMPLE:][sums["images"][FIRST_RESAMPLE:] > 0]
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or metric.name == "held_out":
        return MetricValue(float(values[ALL_IMAGES]), None, None, at)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return MetricValue(float(values[ALL_IMAGES]), float(low), float(high), at)


def compute_curves(sums: SumArrays) -> dict[str, list[float]]:
    """Curves for the plots: accuracy at each threshold and each IoU, and shares of error types."""
    found = {
        "threshold": [level_to_threshold(level) for level in range(sums["single"].shape[-1])],
        "box_acc_at_threshold": _compute_accuracy(sums, "single")[ALL_IMAGES].tolist(),
        "iou": IOU_CURVE_LEVELS.tolist(),
        "gt_known_at_iou": _compute_accuracy(sums, "curve")[ALL_IMAGES].tolist(),
    }
    if "split" in sums:
        found |= {"split": _compute_accuracy(sums, "split")[ALL_IMAGES].tolist()}
    return found
