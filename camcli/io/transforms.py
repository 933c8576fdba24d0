"""Convert an image to the network's input: fit, crop, resize, normalise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from camcli.core.geometry import Crops, Float32Array, View
from camcli.core.types import FitMode, Transform

RESAMPLING_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def create_ten_crops(size: tuple[int, int]) -> Crops:
    """Ten crops: the four corners and the centre of an image, and their mirror images.

    The image is first squashed to 256/224 of the input size, as in LayerCAM's localisation protocol
    and others: 256 x 256 for an input of 224 x 224.
    """
    rows, cols = size
    high, wide = round(rows * 256 / 224), round(cols * 256 / 224)
    down, across = high - rows, wide - cols
    places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    return Crops((high, wide), tuple((y, x, flip) for flip in (False, True) for y, x in places))


def preprocess_crops(
    image: Image.Image | Sequence[Image.Image], crops: Crops, transform: Transform
) -> Float32Array:
    """The inputs (V,C,H,W) for V crops of an image."""
    size = (image if isinstance(image, Image.Image) else image[0]).size
    pixels = preprocess_image(
        image, View.from_whole_image(*size), replace(transform, size=crops.canvas_size)
    )
    rows, cols = transform.size
    cut = [pixels[:, y : y + rows, x : x + cols] for y, x, _ in crops.corners]
    flips = [flip for *_, flip in crops.corners]
    return np.stack([c[..., ::-1] if flip else c for c, flip in zip(cut, flips, strict=True)])


def compute_view(width: int, height: int, transform: Transform, fit_mode: FitMode) -> View:
    """The rectangle of a width x height image that the model's input will show.

    squash: the whole image, without its aspect ratio. tencrop: the same, after its maps are merged.
    crop: the short side scaled to size / crop_pct, then the centre (timm's evaluation transform,
    including its rounding). pad: the whole image, with its aspect ratio.
    """
    rows, cols = transform.size
    if fit_mode in ("squash", "tencrop"):
        return View.from_whole_image(width, height)
    if fit_mode == "pad":
        scaled_w, scaled_h = _compute_scaled_size(width, height, cols, rows, cover=False)
    else:
        wide, high = (math.floor(side / transform.crop_pct) for side in (cols, rows))
        scaled_w, scaled_h = _compute_scaled_size(width, height, wide, high, cover=True)
    left, top = round((scaled_w - cols) / 2), round((scaled_h - rows) / 2)
    across, down = width / scaled_w, height / scaled_h
    return View(
        width, height, left * across, top * down, (left + cols) * across, (top + rows) * down
    )


def _compute_scaled_size(
    width: int, height: int, cols: int, rows: int, *, cover: bool
) -> tuple[int, int]:
    """The size at which the image just covers cols x rows, or just fits inside it."""
    if (cols * height > rows * width) == cover:
        return cols, max(1, cols * height // width)
    return max(1, rows * width // height), rows


def preprocess_image(
    image: Image.Image | Sequence[Image.Image], view: View, transform: Transform
) -> Float32Array:
    """The input (C,H,W): the visible part, resampled and normalised; padding is zero.

    `image` is one picture, or planes of one size that have C bands together. Bytes are divided by
    255; floating-point values stay as they are.
    """
    planes = [image] if isinstance(image, Image.Image) else image
    rows, cols = transform.size
    x0, y0, x1, y1 = view.compute_input_window(rows, cols)
    resampling = RESAMPLING_FILTERS.get(transform.interpolation, Image.Resampling.BICUBIC)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (transform.mean, transform.std))
    pixels = np.zeros((transform.channel_count, rows, cols), np.float32)
    values = pixels[:, y0:y1, x0:x1]
    first = 0
    for plane in planes:
        seen = plane.resize((x1 - x0, y1 - y0), resampling, box=view.visible_rectangle)
        own = values[first : first + len(plane.getbands())]
        own[:] = np.atleast_3d(np.asarray(seen)).transpose(2, 0, 1)
        if plane.mode != "F":
            own /= 255  # in place: new arrays would take eight times as long
        first += len(own)
    values -= mean
    values /= std
    return pixels
