"""From a file to the model's input and the geometry that leads back. Knows nothing of models."""

from __future__ import annotations

import logging
import math
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from camcli.errors import ImageError, one_line
from camcli.records import Crops, Fit, Floats, Transform, View

# Decoders that run no other program and follow no reference to another file.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "bmp", "webp", "tif", "tiff"),
        *("ppm", "pgm", "pnm", "avif", "jp2"),
    )
)
RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# With nobody listening, what Pillow logs of a broken file would go to standard error unnamed.
logging.getLogger("PIL").addHandler(logging.NullHandler())

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path: Path) -> Image.Image:
    """The first frame of an image file, upright, as 8-bit RGB; transparency on white.

    Raises ImageError for anything that is not a whole image in one of FORMATS.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ImageError("not a regular file")  # a pipe or a device could be read for ever
    try:
        with warnings.catch_warnings():
            # Oddities of metadata, and of sizes that Pillow still opens, do not harm the pixels.
            warnings.simplefilter("ignore")
            with _whole(path) as file, Image.open(file, formats=_formats()) as opened:
                opened.load()
                return _rgb(_upright(opened))
    except UnidentifiedImageError:
        raise ImageError("not an image in a format that camcli reads") from None
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError("more pixels than is safe to decode; scale it down first") from None
    except Exception as error:  # noqa: BLE001 - decoders raise whatever a broken file leads to
        raise ImageError(_reason(error)) from None


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file that may have become something else, or nothing, since it was listed."""
    with open(path, "rb", opener=_at_once) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not a regular file")
        if not found.st_size:
            raise ImageError("the file is empty")
        yield file


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # or a pipe is waited for


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: BaseException) -> str:
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(said)  # decoders quote what they read


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says. Only that one tag is read: rewriting the others fails on broken ones."""
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return TURNS.get(int(image.getexif().get(ORIENTATION) or 0))
    except Exception:  # noqa: BLE001 - EXIF that cannot be read: the pixels are still good
        return None


def turned(path: Path) -> Image.Transpose | None:
    """How `decode` turns an image that is there, if it does: annotations must turn with it."""
    if not os.path.isfile(path):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_formats()) as opened:
            return _turn(opened)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        image = Image.alpha_composite(white, layered)
    return image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits to 8; Pillow's own conversion would saturate them."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise ImageError("grey values outside 0..65535 have no agreed scale; save it with 16 bits")
    if image.mode == "F":
        values = values * 255 if values.max() <= 1 else values
    elif image.mode.startswith("I;16") or values.max() > 255:
        values = values / 257
    if values.max() > 255.5:
        raise ImageError("floating-point values above 255 have no agreed scale")
    return Image.fromarray(np.rint(values).astype(np.uint8))


def ten_crops(size: tuple[int, int]) -> Crops:
    """The corners and the middle of an image squashed to 256/224 of the input, and their mirrors.

    As LayerCAM's localisation protocol, and others before it, test: 256 x 256 for 224 x 224.
    """
    rows, cols = size
    high, wide = round(rows * 256 / 224), round(cols * 256 / 224)
    down, across = high - rows, wide - cols
    places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
    return Crops((high, wide), tuple((y, x, flip) for flip in (False, True) for y, x in places))


def read_crops(image: Image.Image, crops: Crops, transform: Transform) -> Floats:
    """The (V,3,H,W) inputs that are cut from an image."""
    pixels = preprocess(image, View.whole(*image.size), replace(transform, size=crops.size))
    rows, cols = transform.size
    cut = [pixels[:, y : y + rows, x : x + cols] for y, x, _ in crops.corners]
    flips = [flip for *_, flip in crops.corners]
    return np.stack([c[..., ::-1] if flip else c for c, flip in zip(cut, flips, strict=True)])


def place(width: int, height: int, transform: Transform, fit: Fit) -> View:
    """The rectangle of a width x height image that the model's input will show.

    squash: all of it, whatever the aspect; tencrop too, once its maps are put together. crop: the
    short side scaled to size / crop_pct, then the centre (timm's evaluation transform, its
    rounding included). pad: all of it, aspect kept.
    """
    rows, cols = transform.size
    if fit in ("squash", "tencrop"):
        return View.whole(width, height)
    if fit == "pad":
        scaled_w, scaled_h = _scaled(width, height, cols, rows, cover=False)
    else:
        wide, high = (math.floor(side / transform.crop_pct) for side in (cols, rows))
        scaled_w, scaled_h = _scaled(width, height, wide, high, cover=True)
    left, top = round((scaled_w - cols) / 2), round((scaled_h - rows) / 2)
    across, down = width / scaled_w, height / scaled_h
    return View(
        width, height, left * across, top * down, (left + cols) * across, (top + rows) * down
    )


def _scaled(width: int, height: int, cols: int, rows: int, *, cover: bool) -> tuple[int, int]:
    """The size at which the image just covers cols x rows, or just fits inside, aspect kept."""
    if (cols * height > rows * width) == cover:
        return cols, max(1, cols * height // width)
    return max(1, rows * width // height), rows


def preprocess(image: Image.Image, view: View, transform: Transform) -> Floats:
    """The (3, H, W) input: what is in view, resampled and normalised; zero where padded."""
    rows, cols = transform.size
    x0, y0, x1, y1 = view.window(rows, cols)
    resampling = RESAMPLING.get(transform.interpolation, Image.Resampling.BICUBIC)
    seen = image.resize((x1 - x0, y1 - y0), resampling, box=view.seen)
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (transform.mean, transform.std))
    pixels = np.zeros((3, rows, cols), np.float32)
    values = pixels[:, y0:y1, x0:x1]
    values[:] = np.asarray(seen).transpose(2, 0, 1)
    values /= 255  # in place: a chain of new arrays takes eight times as long
    values -= mean
    values /= std
    return pixels
