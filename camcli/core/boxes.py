"""From a map to regions to boxes. Knows nothing of models."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from camcli.core.geometry import Floats, View
from camcli.core.types import Box

Keep = Literal["largest", "all", "grabcut"]
GRABCUT_SIDE = 500


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


def boxes(
    part: Floats, threshold: str | float, keep: Keep, view: View, picture: Image.Image
) -> tuple[Box, ...]:
    """Boxes around the 8-connected regions above the threshold, largest region first.

    `part` is the visible part of a map, in [0, 1], `picture` the upright original; boxes are its
    pixels, half-open. The score is the mean of the map over the region. With "grabcut" regions
    are cut out of the picture, and the one box is the largest.
    """
    if keep == "grabcut":
        part, above = grabcut(part, threshold, view, picture)
        return tuple(sorted(_around(above, part, view), key=_size, reverse=True)[:1])
    return _around(part > cut(part, threshold), part, view, 1 if keep == "largest" else None)


def _size(box: Box) -> int:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _around(
    above: NDArray[np.bool_], part: Floats, view: View, most: int | None = None
) -> tuple[Box, ...]:
    """The regions, the largest first, and no more than are asked for."""
    regions, count = ndimage.label(above, np.ones((3, 3)))
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-areas, kind="stable")[:most]
    found = {i: _extent(regions == i + 1) for i in order} if most else ndimage.find_objects(regions)
    return tuple(_to_original(*_measured(regions, i, found[i], part), part, view) for i in order)


def _extent(region: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, cols = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


def _measured(
    regions: NDArray[np.int32], i: int, extent: tuple[slice, slice], part: Floats
) -> tuple[tuple[slice, slice], float]:
    """Where a region is, and the mean of the map over it."""
    return extent, float(part[extent].mean(where=regions[extent] == i + 1, dtype=np.float64))


def grabcut(
    part: Floats, threshold: str | float, view: View, picture: Image.Image
) -> tuple[Floats, NDArray[np.bool_]]:
    """What one iteration of GrabCut cuts out of the picture: the map and the regions, (h, w).

    Sure foreground where the map is above the threshold, probable background elsewhere: the
    connected segments that LayerCAM's protocol makes of shallow layers' maps. On the picture at
    its own size, but at most 500 pixels a side, as ILSVRC's are.
    Source: TIP 2021, section IV-B; GrabCut: 10.1145/1015706.1015720.
    """
    import cv2

    left, top, right, bottom = view.seen
    scale = min(1.0, GRABCUT_SIDE / max(right - left, bottom - top))
    wide, high = (max(1, round(side * scale)) for side in (right - left, bottom - top))
    pixels = np.asarray(picture.resize((wide, high), box=view.seen).convert("RGB"))[..., ::-1]
    heat = np.asarray(Image.fromarray(part).resize((wide, high), Image.Resampling.BICUBIC))
    above = heat > cut(heat, threshold)
    if above.all() or not above.any():
        return heat, above
    marks = np.where(above, cv2.GC_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    back, front = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # it starts from k-means; the same picture has the same boxes
    colours = np.ascontiguousarray(pixels)
    cv2.grabCut(colours, marks, (0, 0, 1, 1), back, front, 1, cv2.GC_INIT_WITH_MASK)
    return heat, (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)


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
