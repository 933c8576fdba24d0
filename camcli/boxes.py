"""From a map to regions to boxes. Knows nothing of models."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from camcli.records import Box, Floats, View

Keep = Literal["largest", "all"]


def cut(shown: Floats, threshold: str | float) -> float:
    """The level above which a pixel belongs to a region."""
    if isinstance(threshold, float):
        return threshold * float(shown.max())
    if threshold == "otsu":
        return otsu(shown)
    return float(np.percentile(shown, float(threshold[1:])))


def otsu(shown: Floats, bins: int = 256) -> float:
    """Otsu's level: the cut that parts a histogram with the greatest variance between classes.

    sigma^2(t) = w0 w1 (mu0 - mu1)^2, over 256 bins of [0, 1]; the upper edge of the best bin.
    Source: IEEE Trans. SMC 9 (1979) 62.
    """
    counts, edges = np.histogram(shown, bins=bins, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[1 + int(np.argmax(np.where(below * above > 0, between, -1)))])


def boxes(part: Floats, threshold: str | float, keep: Keep, view: View) -> tuple[Box, ...]:
    """Boxes around the 8-connected regions above the threshold, largest region first.

    `part` is the visible part of a map, in [0, 1]; boxes are pixels of the upright original,
    half-open. The score is the mean of the map over the region.
    """
    regions, count = ndimage.label(part > cut(part, threshold), np.ones((3, 3)))
    if not count:
        return ()
    index = np.arange(1, count + 1)
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    scores = np.asarray(ndimage.mean(part, regions, index))
    found = ndimage.find_objects(regions)
    order = np.argsort(-areas, kind="stable")[: 1 if keep == "largest" else None]
    return tuple(_to_original(found[i], float(scores[i]), part, view) for i in order)


def _to_original(
    region: tuple[slice, slice], score: float, part: NDArray[np.float32], view: View
) -> Box:
    rows, cols = region
    left, top, right, bottom = view.seen
    across, down = (right - left) / part.shape[1], (bottom - top) / part.shape[0]
    x1, y1 = round(left + cols.start * across), round(top + rows.start * down)
    x2, y2 = round(left + cols.stop * across), round(top + rows.stop * down)
    x1, y1 = min(x1, view.width - 1), min(y1, view.height - 1)
    return Box(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1), round(score, 4))
