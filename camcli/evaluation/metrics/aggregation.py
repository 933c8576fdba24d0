"""Counts summed over images, over halves of them and over bootstrap resamples; and what they mean.

Nothing is kept of an image but its share in the sums: memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from camcli.evaluation.datasets.annotations import code
from camcli.evaluation.metrics.scoring import CURVE, Counts

Sums = Mapping[str, NDArray[np.float64]]  # each (R, ...): all, two halves, then the resamples
Values = NDArray[np.float64]

ALL, EVEN, ODD, FIRST = 0, 1, 2, 3  # rows of the sums
PENDING = 32  # images summed at once, as one matrix product


@lru_cache(maxsize=64)  # the rows of an image come one after another
def weights(image: str, resamples: int, seed: int) -> Values:
    """How often an image counts in each row of the sums (R,).

    A bootstrap resample draws N images of N; each then counts Poisson(1) times, which needs no N
    (arXiv 1312.5021). It goes by the image's name: the classes of one image go together, and
    methods and models are compared on the same resamples and halves.
    """
    generator = np.random.default_rng([seed, code(image)])
    half = generator.integers(2)
    drawn = generator.poisson(1.0, resamples)
    return np.array([1, half == 0, half == 1, *drawn], np.float64)


@dataclass(slots=True)
class Tally:
    """Sums of counts, each image weighted as the rows ask."""

    _sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    _waiting: list[tuple[Values, Counts]] = field(default_factory=list)

    def add(self, weight: Values, counts: Counts) -> None:
        """Take in one image's counts."""
        self._waiting.append((weight, counts))
        if len(self._waiting) == PENDING:
            self._settle()

    @property
    def sums(self) -> Sums:
        """What was counted so far."""
        self._settle()
        return self._sums

    def _settle(self) -> None:
        for name in dict.fromkeys(name for _, counts in self._waiting for name in counts):
            having = [(weight, counts) for weight, counts in self._waiting if name in counts]
            weight = np.stack([w for w, _ in having], axis=1)
            values = np.stack([c[name] for _, c in having])
            shape = values.shape[1:]
            added = (weight @ values.reshape(len(having), -1)).reshape(-1, *shape)
            self._sums[name] = self._sums.get(name, 0) + added
        self._waiting.clear()


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a row: how it follows from the sums, of what counts, and what it is."""

    name: str
    needs: str
    of: Callable[[Sums], Values]
    what: str
    threshold: Callable[[Sums], float] | None = None


def _share(name: str) -> Callable[[Sums], Values]:
    return lambda sums: sums[name] / _number(sums)


def _number(sums: Sums) -> Values:
    return np.maximum(sums["images"], 1)


def _accuracy(sums: Sums, name: str) -> Values:
    """Accuracy at each level (R, ..., 255)."""
    number = _number(sums)
    return sums[name] / number.reshape(-1, *[1] * (sums[name].ndim - 1))


def _best(name: str) -> Callable[[Sums], Values]:
    """Accuracy at the level that is best on all images, in resamples too; of several IoUs the mean.

    To pick a level anew in each resample would count twice that the best of many is too good.
    """

    def best(sums: Sums) -> Values:
        accuracy = _accuracy(sums, name).reshape(len(sums["images"]), -1, sums[name].shape[-1])
        level = accuracy[ALL].argmax(axis=-1)
        found: Values = accuracy[:, np.arange(len(level)), level].mean(axis=1)
        return found

    return best


def _best_threshold(sums: Sums) -> float:
    return threshold_of(int(sums["single"][ALL].argmax()))


def threshold_of(level: int) -> float:
    """The first threshold in thousandths with int(255 t) = level, as wsolevaluation lists them."""
    return float(np.ceil(level / 255 * 1000) / 1000)


def _held_out(sums: Sums) -> Values:
    """Each half at the level that is best on the other: what a user who tunes would meet.

    NaN where a half is empty.
    """
    accuracy, number = _accuracy(sums, "single"), sums["images"]
    right = sum(
        sums["single"][half, accuracy[other].argmax()] for half, other in ((EVEN, ODD), (ODD, EVEN))
    )
    halved = number[EVEN] > 0 and number[ODD] > 0
    return np.full(len(accuracy), right / number[ALL] if halved else np.nan)


def _pxap(sums: Sums) -> Values:
    """sum_i P_i (R_i - R_{i-1}) over falling thresholds, all images' pixels pooled."""
    true, false = (sums["pixels"][:, i, ::-1].cumsum(axis=1) for i in (0, 1))
    precision = true / np.maximum(true + false, 1)
    with np.errstate(invalid="ignore"):
        recall = true / true[:, -1:]  # NaN for a resample without any mask
    found: Values = (precision * np.diff(recall, axis=1, prepend=0)).sum(axis=1)
    return found


METRICS: tuple[Metric, ...] = (
    Metric("cls_1", "cls_1", _share("cls_1"), "top-1 accuracy"),
    Metric("cls_5", "cls_5", _share("cls_5"), "top-5 accuracy"),
    Metric("loc_1", "loc_1", _share("loc_1"), "top-1 class right and its box's IoU > 0.5"),
    Metric("loc_5", "loc_5", _share("loc_5"), "class among five and its box's IoU > 0.5"),
    Metric("gt_known", "gt_known", _share("gt_known"), "IoU >= 0.5 at the method's threshold"),
    Metric(
        "max_box_acc",
        "single",
        _best("single"),
        "IoU >= 0.5 at the best threshold",
        _best_threshold,
    ),
    Metric(
        "held_out", "single", _held_out, "the same, each half at the other half's best threshold"
    ),
    Metric("max_box_acc_v2", "multi", _best("multi"), "any box; mean of IoU >= 0.3, 0.5, 0.7"),
    Metric("pxap", "pixels", _pxap, "average precision over the pixels of masks"),
    Metric("pointing", "pointing", _share("pointing"), "maximum within 15 px of the object"),
    Metric("pointing_strict", "pointing_strict", _share("pointing_strict"), "maximum on it"),
    Metric("energy", "energy", _share("energy"), "share of the map within the boxes"),
    Metric("box_acc", "box_acc", _share("box_acc"), "explain's own boxes, IoU >= 0.5"),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's value, its 95 % interval, and the threshold it was found at."""

    value: float
    low: float | None
    high: float | None
    threshold: float | None = None


def measured(sums: Sums) -> dict[str, Measured]:
    """Every metric that these sums can tell."""
    found = {m.name: _measured(m, sums) for m in METRICS if m.needs in sums}
    return {name: metric for name, metric in found.items() if np.isfinite(metric.value)}


def _measured(metric: Metric, sums: Sums) -> Measured:
    values = metric.of(sums)
    at = metric.threshold(sums) if metric.threshold else None
    drawn = values[FIRST:][sums["images"][FIRST:] > 0]  # of few images a resample may have none
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or metric.name == "held_out":
        return Measured(float(values[ALL]), None, None, at)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Measured(float(values[ALL]), float(low), float(high), at)


def curves(sums: Sums) -> dict[str, list[float]]:
    """What is drawn: accuracy at each threshold, at each IoU, and the shares of the error split."""
    found = {
        "threshold": [threshold_of(level) for level in range(sums["single"].shape[-1])],
        "box_acc_at_threshold": _accuracy(sums, "single")[ALL].tolist(),
        "iou": CURVE.tolist(),
        "gt_known_at_iou": _accuracy(sums, "curve")[ALL].tolist(),
    }
    if "split" in sums:
        found |= {"split": _accuracy(sums, "split")[ALL].tolist()}
    return found
