"""Read arrays of bands from untrusted files: .npy, and TIFFs with modes that Pillow lacks."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from camcli.core.errors import ImageError
from camcli.core.geometry import Float32Array
from camcli.io.images import open_image_file

Array = NDArray[Any]
# Without a handler, tifffile's log of a broken file would go to standard error without a name.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
MAX_VALUES = 2**28  # 1 GiB as float32
HEADER_READERS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def load_npy(path: Path) -> Array:
    """The array of a .npy file. No code from the file runs, and its header is checked first.

    Raises ImageError for a file that is cut short, too large, or of other values than bytes,
    uint16 and floating-point numbers.
    """
    with open_image_file(path) as file:
        _check_npy_header(file)
        return np.asarray(np.load(file, allow_pickle=False))


def _check_npy_header(file: BinaryIO) -> None:
    read_header = HEADER_READERS.get(npy_format.read_magic(file))
    if read_header is None:
        raise ImageError("a .npy file of another version than 1 and 2")
    shape, _, dtype = read_header(file)
    check_array(shape, dtype)
    if math.prod(shape) * dtype.itemsize > os.fstat(file.fileno()).st_size - file.tell():
        raise ImageError("the file is cut short")  # before memory is taken for the whole
    file.seek(0)


def load_tiff(path: Path) -> Array:
    """The first series of a TIFF, read by tifffile, which is an optional dependency.

    Raises ImageError as `load_npy` does, and without tifffile.
    """
    if find_spec("tifffile") is None:
        raise ImageError(
            "a TIFF with these bands needs tifffile: pip install 'camcli[tiff]'; or save the bands "
            "as .npy"
        )
    import tifffile

    with open_image_file(path) as file, tifffile.TiffFile(file) as opened:
        if not opened.series:
            raise ImageError("not an image in a format that camcli reads")
        first = opened.series[0]
        check_array(first.shape, np.dtype(first.dtype))
        return np.asarray(first.asarray())


def check_array(shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    """Raise ImageError for an array that is no image, or too large."""
    if dtype.kind != "f" and dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise ImageError(
            f"values of type {dtype.name[:40]} have no scale; save uint8, uint16 or float32"
        )
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ImageError(
            f"an array of shape {tuple(shape[:6])} is not an image; save (H, W, C) or (C, H, W)"
        )
    if math.prod(shape) > MAX_VALUES:
        raise ImageError(f"more than {MAX_VALUES:,} values; scale the image down first")


def order_bands(values: Array, channel_count: int) -> Array:
    """An array (H,W), (H,W,C) or (C,H,W) as (H,W,C); where both fit, the last dimension is C.

    C is the number of channels. Three channels also take one band, and one channel takes three.
    Raises ImageError for another number of bands.
    """
    check_array(values.shape, values.dtype)
    if values.ndim == 2:
        values = values[:, :, None]
    for count in (channel_count, {1: 3, 3: 1}.get(channel_count, channel_count)):
        if values.shape[2] == count:
            return values
        if values.shape[0] == count:
            return values.transpose(1, 2, 0)
    raise create_band_error(min(values.shape[0], values.shape[2]), channel_count)


def create_band_error(count: int, channel_count: int) -> ImageError:
    """The error of an image with another number of bands than the network has channels."""
    bands = f"has {count} band{'s' * (count != 1)}, the network takes {channel_count}"
    files = f"; give a .npy file or a TIFF of {channel_count} bands"
    return ImageError(bands + files if channel_count not in (1, 3) else bands)


def check_finite(values: Array) -> Float32Array:
    """Floating-point values as float32. Raises ImageError for NaN or infinity."""
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32)
    if not np.isfinite(converted).all():
        raise ImageError("the bands hold NaN or infinity; fill these values first")
    return converted
