"""The grey pictures of `--save map`, read again: they may come from anyone."""

from __future__ import annotations

import io
from base64 import b64encode
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_FILE_BYTES = 2**22
MAX_SIDE = 4096
MAX_INLINE_SIDE = 56  # a larger map is reduced before it goes into a page
MapArray = NDArray[np.float32]


class MapPictureError(ValueError):
    """A file is not a map that camcli wrote; the message says why."""


def load_map_picture(path: Path) -> MapArray:
    """The values of a map picture: (h, w) in [0, 1].

    Raises MapPictureError if the file is missing, damaged, too large, or not an 8-bit grey PNG.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise MapPictureError("too large for a map")
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.mode != "L" or max(picture.size) > MAX_SIDE:
                raise MapPictureError(f"not a map: {picture.mode}, {picture.size}")
            return np.asarray(picture, np.float32) / np.float32(255)
    except MapPictureError:
        raise
    except FileNotFoundError:
        raise MapPictureError("missing") from None
    except Exception as error:  # noqa: BLE001 - a damaged file can raise anything
        raise MapPictureError(f"cannot be read: {type(error).__name__}") from None


def encode_inline_map(values: MapArray) -> str:
    """A map (h, w) in [0, 1] as a small grey PNG in base64."""
    picture = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    picture.thumbnail((MAX_INLINE_SIDE, MAX_INLINE_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=9)
    return b64encode(buffer.getvalue()).decode()


def compute_correlation(one: MapArray, other: MapArray) -> float | None:
    """Pearson's correlation of two maps; None if one of them is constant.

    Maps of different sizes are compared at the larger of both sizes, resized bilinearly.
    """
    rows, cols = (max(sides) for sides in zip(one.shape, other.shape, strict=True))
    first, second = (_center(_resize(values, rows, cols)) for values in (one, other))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float((first * second).sum()) / lengths if lengths > 1e-9 else None


def compute_agreement(maps: list[MapArray]) -> float | None:
    """The mean correlation of every two maps; None for fewer than two that vary."""
    found = [compute_correlation(one, other) for one, other in combinations(maps, 2)]
    numbers = [value for value in found if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _center(values: MapArray) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    centered: NDArray[np.float64] = wide - wide.mean()
    return centered


def _resize(values: MapArray, rows: int, cols: int) -> MapArray:
    if values.shape == (rows, cols):
        return values
    resized = Image.fromarray(values).resize((cols, rows), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)
