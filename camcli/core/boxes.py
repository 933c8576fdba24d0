"""From a map to regions, and from regions to boxes."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.connected_regions import Extent, label_regions
from camcli.core.geometry import Float32Array, View
from camcli.core.types import Box

BoxSelection = Literal["largest", "all", "grabcut"]
MAX_GRABCUT_SIDE = 500


def compute_cutoff(heatmap: Float32Array, threshold: str | float) -> float:
    """The map value above which a pixel belongs to a region; with "none", no pixel does."""
    if isinstance(threshold, float):
        return threshold * float(heatmap.max())
    if threshold == "none":
        return math.inf
    if threshold == "otsu":
        return compute_otsu_threshold(heatmap)
    return float(np.percentile(heatmap, float(threshold[1:])))


def compute_otsu_threshold(heatmap: Float32Array, bin_count: int = 256) -> float:
    """Otsu's threshold: the cut of the histogram with the largest variance between both sides.

    sigma^2(t) = w0 w1 (mu0 - mu1)^2, over 256 bins of [0, 1]; the upper edge of the best bin.
    Source: IEEE Trans. SMC 9 (1979) 62.
    """
    counts, edges = np.histogram(heatmap, bins=bin_count, range=(0.0, 1.0))
    centres = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return float(edges[1 + int(np.argmax(np.where(below * above > 0, between, -1)))])


def find_boxes(
    visible_map: Float32Array,
    threshold: str | float,
    selection: BoxSelection,
    view: View,
    image: Image.Image,
) -> tuple[Box, ...]:
    """The boxes of `find_regions`."""
    return find_regions(visible_map, threshold, selection, view, image)[0]


def find_regions(
    visible_map: Float32Array,
    threshold: str | float,
    selection: BoxSelection,
    view: View,
    image: Image.Image,
) -> tuple[tuple[Box, ...], NDArray[np.bool_]]:
    """Boxes around the 8-connected regions above the threshold, largest region first.

    `visible_map` is the visible part of a map, in [0, 1]. `image` is the upright original; boxes
    are in its pixels, half-open. The score is the mean of the map over the region. "grabcut"
    segments the image with GrabCut and returns the largest box. The second result (h, w) marks the
    regions that have a box, on the grid of the map, or of GrabCut.
    """
    if selection == "grabcut":
        visible_map, above = segment_with_grabcut(visible_map, threshold, view, image)
        found = _find_region_boxes(above, visible_map, view)
        largest = max(found, key=lambda entry: _compute_box_area(entry[0]), default=None)
        found = [largest] if largest else []
    else:
        above = visible_map > compute_cutoff(visible_map, threshold)
        found = _find_region_boxes(above, visible_map, view, 1 if selection == "largest" else None)
    chosen = np.zeros(visible_map.shape, np.bool_)
    for _, extent, region in found:
        chosen[extent] |= region
    return tuple(box for box, _, _ in found), chosen


def _compute_box_area(box: Box) -> int:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _find_region_boxes(
    mask: NDArray[np.bool_], visible_map: Float32Array, view: View, max_count: int | None = None
) -> list[tuple[Box, Extent, NDArray[np.bool_]]]:
    """The box of each region, its extent and its pixels there; largest region first."""
    regions = label_regions(mask)
    areas = np.bincount(regions.labels.ravel(), minlength=len(regions.extents) + 1)[1:]
    found = []
    for i in np.argsort(-areas, kind="stable")[:max_count]:
        extent = regions.extents[i]
        region = regions.labels[extent] == i + 1
        score = float(visible_map[extent].mean(where=region, dtype=np.float64))
        found.append((_region_to_box(extent, score, visible_map, view), extent, region))
    return found


def segment_with_grabcut(
    visible_map: Float32Array, threshold: str | float, view: View, image: Image.Image
) -> tuple[Float32Array, NDArray[np.bool_]]:
    """Segment the image with one iteration of GrabCut; returns the map and the regions, (h, w).

    Pixels above the threshold are sure foreground, the others probable background. LayerCAM's
    protocol does so for the maps of shallow layers. The image keeps its size, but at most 500
    pixels a side, the usual size of ILSVRC images.
    Source: TIP 2021, section IV-B; GrabCut: 10.1145/1015706.1015720.
    """
    import cv2

    left, top, right, bottom = view.visible_rectangle
    scale = min(1.0, MAX_GRABCUT_SIDE / max(right - left, bottom - top))
    wide, high = (max(1, round(side * scale)) for side in (right - left, bottom - top))
    pixels = np.asarray(image.resize((wide, high), box=view.visible_rectangle).convert("RGB"))[
        ..., ::-1
    ]
    heat = np.asarray(Image.fromarray(visible_map).resize((wide, high), Image.Resampling.BICUBIC))
    above = heat > compute_cutoff(heat, threshold)
    if above.all() or not above.any():
        return heat, above
    marks = np.where(above, cv2.GC_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    back, front = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut starts from k-means; the seed makes its boxes repeatable
    colours = np.ascontiguousarray(pixels)
    cv2.grabCut(colours, marks, (0, 0, 1, 1), back, front, 1, cv2.GC_INIT_WITH_MASK)
    return heat, (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)


def _region_to_box(
    region: tuple[slice, slice], score: float, visible_map: NDArray[np.float32], view: View
) -> Box:
    rows, cols = region
    left, top, right, bottom = view.visible_rectangle
    across, down = (right - left) / visible_map.shape[1], (bottom - top) / visible_map.shape[0]
    x1, y1 = round(left + cols.start * across), round(top + rows.start * down)
    x2, y2 = round(left + cols.stop * across), round(top + rows.stop * down)
    x1, y1 = min(x1, view.image_width - 1), min(y1, view.image_height - 1)
    return Box(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1), round(score, 4))


def region_to_mask(region: NDArray[np.bool_], view: View) -> NDArray[np.bool_]:
    """A region on the grid of a map (h, w) as pixels of the original: (height, width).

    A cell covers the pixels between its rounded edges, as for `find_boxes`, so that a box just
    holds the mask of its region. In an image that is smaller than the grid, some cells cover none.
    """
    left, top, right, bottom = view.visible_rectangle
    columns = _find_covering_cells(left, right, region.shape[1], view.image_width)
    rows = _find_covering_cells(top, bottom, region.shape[0], view.image_height)
    outside = np.pad(region, ((0, 1), (0, 1)))  # the last row and column: no cell
    return outside[rows[:, None], columns[None, :]]


def _find_covering_cells(
    start: float, stop: float, cell_count: int, pixel_count: int
) -> NDArray[np.intp]:
    """The cell that covers each of n pixels: (n,); `cell_count` where there is none."""
    edges = np.rint(start + np.arange(cell_count + 1) * ((stop - start) / cell_count))
    cells = np.searchsorted(edges, np.arange(pixel_count), side="right") - 1
    return np.where(cells < 0, cell_count, cells)
