"""Maps inside a page: small grey pictures that the page colours."""

from __future__ import annotations

import io
from base64 import b64encode
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.correlation import compute_pearson
from camcli.review.map_correlation import align_maps
from camcli.review.result_lines import Rectangle

MAX_INLINE_SIDE = 56  # a larger map is reduced before it goes into a page
WHOLE: Rectangle = (0.0, 0.0, 1.0, 1.0)


def encode_inline_map(grey_map: Image.Image) -> str:
    """A map as a small grey PNG in base64."""
    small = grey_map.copy()
    small.thumbnail((MAX_INLINE_SIDE, MAX_INLINE_SIDE), Image.Resampling.BOX)
    small.info.clear()
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", compress_level=9)
    return b64encode(buffer.getvalue()).decode()


def create_difference_map(base: Image.Image, new: Image.Image) -> tuple[Image.Image, float]:
    """The size of the change at every position, |new - base|, and the largest change in [0, 1].

    The largest change has the value 255, so that a small change is visible too.
    """
    one, other = align_maps(base, new, WHOLE, WHOLE)
    change: NDArray[np.float64] = np.abs(other - one)
    largest = float(change.max())
    levels = change * (255 / largest) if largest else change
    return Image.fromarray(levels.round().astype(np.uint8)), largest / 255


def compute_agreement(maps: list[Image.Image]) -> float | None:
    """The mean Pearson correlation of every two maps; None for fewer than two that vary."""
    found = [compute_pearson(*align_maps(a, b, WHOLE, WHOLE)) for a, b in combinations(maps, 2)]
    numbers = [value for value in found if value is not None]
    return sum(numbers) / len(numbers) if numbers else None
