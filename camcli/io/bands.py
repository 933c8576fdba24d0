"""Read the bands of an image for a network of any number of channels, and draw them in RGB.

Three channels get the 8-bit RGB of `camcli.io.images`. One channel gets grey: ITU-R 601 luma, as in
Pillow's mode L, and grey values of 16 bits keep their precision. Other networks need an image with
as many bands as they have channels: an array, a TIFF, or any format with transparency or CMYK.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.errors import ImageError
from camcli.core.types import DEFAULT_MAX_PIXELS
from camcli.io.arrays import check_finite, create_band_error, load_npy, load_tiff, order_bands
from camcli.io.discovery import ARRAY_SUFFIX
from camcli.io.images import (
    FirstFrame,
    is_deep_grey,
    load_upright,
    raise_image_errors,
    read_first_frame,
    scale_deep_grey,
    to_rgb,
)

TIFF_SUFFIXES = (".tif", ".tiff")
TIFF_BITS_TAG, TIFF_BANDS_TAG = 258, 277
STRETCH_PERCENTILES = (2, 98)
MAX_STRETCH_VALUES = 2**20  # percentiles are of at most about this many values
LUMA_WEIGHTS = (0.299, 0.587, 0.114)

Array = NDArray[Any]
PlanesAndPicture = tuple[tuple[Image.Image, ...], Image.Image | None]


@dataclass(frozen=True, slots=True)
class Pixels:
    """An upright image: planes for the network, and an RGB picture of the same size for people.

    The planes' bands are the network's channels, in order. Planes of bytes count from 0 to 255;
    planes of mode F hold the values that are normalised next. `has_more_frames` means that the
    file has more frames or pages than the first.
    """

    planes: tuple[Image.Image, ...]
    picture: Image.Image
    has_more_frames: bool = False


def read_pixels(
    image: Path | Image.Image | Array,
    channel_count: int,
    picture_bands: Sequence[int] = (),
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Pixels:
    """The pixels of a file, an image or an array for a network of so many channels.

    `picture_bands` are the numbers, from 1, of the bands that the picture shows: three, or one as
    grey. Without them it shows the first three, or the first. A picture of values that are no bytes
    is stretched between the 2nd and the 98th percentile of each band. Raises ImageError, also for
    an image with another number of bands, or a file of more than `max_pixels`.
    """
    if isinstance(image, Path) and image.suffix.lower() != ARRAY_SUFFIX:
        frame = _read_file_planes(image, channel_count, max_pixels)
        (planes, picture), more = frame.content, frame.has_more_frames
    else:
        (planes, picture), more = _read_planes(image, channel_count), False
    if picture is None or picture_bands:
        picture = _draw_bands(planes, picture_bands)
    return Pixels(planes, picture, more)


def read_picture(
    image: Path | Image.Image | Array,
    channel_count: int,
    picture_bands: Sequence[int] = (),
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Image.Image:
    """The picture of `read_pixels` alone."""
    return read_pixels(image, channel_count, picture_bands, max_pixels).picture


def _read_planes(image: Path | Image.Image | Array, channel_count: int) -> PlanesAndPicture:
    """The planes, and the picture if the image is one that people can look at as it is."""
    if isinstance(image, np.ndarray):
        return _array_to_planes(image, channel_count), None
    if isinstance(image, Path):
        return _array_to_planes(load_npy(image), channel_count), None
    if channel_count == 3:
        return (image,), image
    with raise_image_errors():
        return _to_planes(load_upright(image), channel_count)


def _read_file_planes(
    path: Path, channel_count: int, max_pixels: int
) -> FirstFrame[PlanesAndPicture]:
    if channel_count in (1, 3) or path.suffix.lower() not in TIFF_SUFFIXES:
        decode = partial(_decode_planes, channel_count=channel_count)
        return read_first_frame(path, decode, max_pixels)
    return _read_tiff_planes(path, channel_count, max_pixels)


def _decode_planes(opened: Image.Image, channel_count: int) -> PlanesAndPicture:
    upright = load_upright(opened)
    if channel_count != 3:
        return _to_planes(upright, channel_count)
    picture = to_rgb(upright)
    return (picture,), picture


def _to_planes(image: Image.Image, channel_count: int) -> PlanesAndPicture:
    if channel_count > 1:
        return _check_band_count(_split_bands(image), channel_count), None
    if is_deep_grey(image):
        return (Image.fromarray((scale_deep_grey(image) / 255).astype(np.float32)),), None
    picture = to_rgb(image)
    return (picture.convert("L"),), picture


def _split_bands(image: Image.Image) -> tuple[Image.Image, ...]:
    """The 8-bit bands of an image; the colours of a palette count as bands."""
    if is_deep_grey(image):
        return (image,)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    return (image.convert("L"),) if image.mode == "1" else image.split()


def _check_band_count(
    bands: tuple[Image.Image, ...], channel_count: int
) -> tuple[Image.Image, ...]:
    if len(bands) != channel_count:
        raise create_band_error(len(bands), channel_count)
    return bands


def _read_tiff_planes(
    path: Path, channel_count: int, max_pixels: int
) -> FirstFrame[PlanesAndPicture]:
    """The bands of a TIFF. Pillow has no modes for most, and leaves out a fifth band silently."""
    frame = None
    with suppress(ImageError):
        frame = read_first_frame(path, _split_whole_tiff, max_pixels)
    if frame is not None and frame.content is not None:
        planes = _check_band_count(frame.content, channel_count)
        return FirstFrame((planes, None), frame.has_more_frames)
    planes = _array_to_planes(load_tiff(path), channel_count)
    return FirstFrame((planes, None), has_more_frames=False)


def _split_whole_tiff(image: Any) -> tuple[Image.Image, ...] | None:
    """The bands of a TIFF that Pillow reads as a whole: all of them, with 8 bits each."""
    tags = getattr(image, "tag_v2", {})
    is_whole = set(tags.get(TIFF_BITS_TAG, ())) == {8}
    if not is_whole or tags.get(TIFF_BANDS_TAG, 1) > len(image.getbands()):
        return None
    return _split_bands(load_upright(image))


def _array_to_planes(values: Array, channel_count: int) -> tuple[Image.Image, ...]:
    """The planes of an array (H,W), (H,W,C) or (C,H,W) of bytes, uint16 or floating-point values.

    Whole numbers are fractions of the largest: 255 or 65535 is 1. Fractions stay as they are.
    """
    values = order_bands(values, channel_count)
    if values.dtype == np.uint8:
        return _bytes_to_planes(np.ascontiguousarray(values), channel_count)
    scaled = check_finite(values)
    if values.dtype.kind == "u":
        scaled /= 65535
    if values.shape[2] == 3 and channel_count == 1:
        scaled = (scaled @ np.array(LUMA_WEIGHTS, np.float32))[..., None]
    bands = [Image.fromarray(np.ascontiguousarray(scaled[..., n])) for n in range(scaled.shape[2])]
    return tuple(bands * channel_count if len(bands) == 1 else bands)


def _bytes_to_planes(values: Array, channel_count: int) -> tuple[Image.Image, ...]:
    if values.shape[2] == 3:
        colours = Image.fromarray(values)
        return (colours.convert("L"),) if channel_count == 1 else (colours,)
    bands = [Image.fromarray(values[..., n].copy()) for n in range(values.shape[2])]
    return tuple(bands * channel_count if len(bands) == 1 else bands)


def _draw_bands(planes: Sequence[Image.Image], picture_bands: Sequence[int]) -> Image.Image:
    bands = [band for plane in planes for band in plane.split()]
    numbers = picture_bands or ((1, 2, 3) if len(bands) > 2 else (1,))
    if max(numbers) > len(bands):
        raise ImageError(f"there is no band {max(numbers)}: the network takes {len(bands)}")
    shown = [_stretch_band(bands[number - 1]) for number in numbers]
    return Image.merge("RGB", shown if len(shown) == 3 else shown[:1] * 3)


def _stretch_band(band: Image.Image) -> Image.Image:
    """A band as bytes; other values are stretched between two percentiles."""
    if band.mode == "L":
        return band
    values = np.asarray(band)
    step = max(1, math.isqrt(values.size // MAX_STRETCH_VALUES))
    low, high = np.percentile(values[::step, ::step], STRETCH_PERCENTILES)
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return Image.fromarray(np.rint(share.clip(0, 1) * 255).astype(np.uint8))
