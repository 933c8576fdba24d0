"""Read two saved maps and correlate them.

NumPy and Pillow load with this module, so it is imported only where maps are compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.correlation import compute_pearson, compute_spearman, is_constant
from camcli.core.errors import ImageError
from camcli.io.images import open_image_file
from camcli.review.result_lines import Rectangle

MAX_MAP_PIXELS = 4096 * 4096  # the largest input that camcli explains
MapArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MapSimilarity:
    """The correlations of two maps; None where a constant map leaves them undefined."""

    pearson: float | None
    spearman: float | None
    is_base_constant: bool
    is_new_constant: bool


def read_grey_map(path: Path) -> Image.Image:
    """A map as `--save map` writes it: an 8-bit grey PNG.

    Raises ImageError for any other file. The size is checked before the pixels are decoded.
    """
    with open_image_file(path) as file, Image.open(file, formats=("PNG",)) as opened:
        if opened.mode != "L":
            raise ImageError(f"its pixels are {opened.mode}, not 8-bit grey")
        if opened.width * opened.height > MAX_MAP_PIXELS:
            raise ImageError(f"it has {opened.width} x {opened.height} pixels, too many for a map")
        opened.load()
        return opened.copy()


def compare_maps(
    base: Image.Image, new: Image.Image, base_view: Rectangle, new_view: Rectangle
) -> MapSimilarity:
    """Correlate two maps on the part of the image that both cover.

    The views are the rectangles of the image that the maps cover. Raises ImageError if they have
    nothing in common.
    """
    one, other = align_maps(base, new, base_view, new_view)
    return MapSimilarity(
        pearson=compute_pearson(one, other),
        spearman=compute_spearman(one, other),
        is_base_constant=is_constant(one),
        is_new_constant=is_constant(other),
    )


def align_maps(
    base: Image.Image, new: Image.Image, base_view: Rectangle, new_view: Rectangle
) -> tuple[MapArray, MapArray]:
    """Both maps on one grid: that of the larger map, and of the rectangle that both cover.

    Pillow resizes bilinearly and averages where it makes a map smaller.
    """
    common = _intersect(base_view, new_view)
    size = max(base.size, new.size, key=lambda size: (size[0] * size[1], size))
    return _resample(base, base_view, common, size), _resample(new, new_view, common, size)


def _intersect(one: Rectangle, other: Rectangle) -> Rectangle:
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    if left >= right or top >= bottom:
        raise ImageError("the two maps cover different parts of the image")
    return left, top, right, bottom


def _resample(
    image: Image.Image, view: Rectangle, part: Rectangle, size: tuple[int, int]
) -> MapArray:
    """The values of a part of a map on a grid of `size` (width, height)."""
    if view == part and image.size == size:
        return np.asarray(image, dtype=np.float64)
    across, down = image.width / (view[2] - view[0]), image.height / (view[3] - view[1])
    box = (
        *((part[0] - view[0]) * across, (part[1] - view[1]) * down),
        *(min((part[2] - view[0]) * across, image.width),),  # not beyond the edge by rounding
        *(min((part[3] - view[1]) * down, image.height),),
    )
    try:
        resized = image.convert("F").resize(size, Image.Resampling.BILINEAR, box=box)
    except (ValueError, MemoryError):  # a part of less than a pixel, by views that lie
        raise ImageError("the two maps cover different parts of the image") from None
    return np.asarray(resized, dtype=np.float64)
