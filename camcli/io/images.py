"""Decode image files safely: upright, 8-bit RGB."""

from __future__ import annotations

import logging
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from camcli.core.errors import CamcliError, ImageError, to_one_line
from camcli.core.types import DEFAULT_MAX_PIXELS
from camcli.io.decoder_messages import collect_decoder_messages

Out = TypeVar("Out")
# Only decoders that run no other program and open no other file.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
IMAGE_PLUGINS = ("Jpeg", "Png", "Gif", "Bmp", "WebP", "Tiff", "Ppm", "Avif", "Jpeg2K")
# Without a handler, Pillow's log of a broken file would go to standard error without a name.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# What NumPy and Pillow raise on an image that is too large or too odd for them; not a bug.
ODD_IMAGE_ERRORS = (
    *(MemoryError, RecursionError, OSError, ValueError),
    *(OverflowError, SystemError, struct.error),
)
LARGE_IMAGE_PIXELS = 2**25  # larger images are decoded and drawn one at a time
_large_image_lock = threading.RLock()

EXIF_ORIENTATION_TAG = 0x0112
EXIF_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class FirstFrame(Generic[Out]):
    """What was read of the first frame, and whether the file has more frames or pages."""

    content: Out
    has_more_frames: bool


def load_image(path: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """The first frame of an image file, upright, as 8-bit RGB; transparent pixels become white.

    Raises ImageError for a file that is not a complete image in one of IMAGE_FORMATS, or that has
    more than `max_pixels`.
    """
    return read_first_frame(path, _decode, max_pixels).content


def read_first_frame(
    path: Path, decode: Callable[[Image.Image], Out], max_pixels: int = DEFAULT_MAX_PIXELS
) -> FirstFrame[Out]:
    """What a function makes of an opened image file, before the file is closed.

    Raises ImageError as `load_image` does.
    """
    with (
        open_image_file(path) as file,
        Image.open(file, formats=_list_supported_formats()) as opened,
    ):
        _check_pixel_count(opened, max_pixels)
        with take_turns_if_large(*opened.size):
            return FirstFrame(decode(opened), _has_more_frames(opened))


@contextmanager
def open_image_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; whatever reading it raises becomes an ImageError of one line."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ImageError("not a regular file")  # reading a pipe or a device may never end
    with raise_image_errors(), _open_regular_file(path) as file:
        yield file


def decode_image(image: Image.Image) -> Image.Image:
    """An image that Pillow has opened or made, upright, as 8-bit RGB, as `load_image` gives it.

    Raises ImageError for a file that is not complete.
    """
    with raise_image_errors():
        return _decode(image)


@contextmanager
def take_turns_if_large(width: int, height: int) -> Iterator[None]:
    """Let one thread at a time work on large images, so that memory does not grow with threads."""
    with _large_image_lock if width * height > LARGE_IMAGE_PIXELS else nullcontext():
        yield


def describe_image_error(error: BaseException) -> str:
    """Why an image failed, in the words of camcli, the decoder, Pillow or NumPy, as one line."""
    if isinstance(error, CamcliError):
        return str(error)
    if isinstance(error, MemoryError):
        return "not enough memory for an image of this size"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return to_one_line(said)  # decoders quote the file's content


def _check_pixel_count(image: Image.Image, max_pixels: int) -> None:
    count = image.width * image.height
    if count > max_pixels:
        raise ImageError(
            f"it has {count} pixels ({image.width} x {image.height}), more than {max_pixels}; "
            f"scale it down, or add --max-pixels {count} if there is memory for it"
        )


def _has_more_frames(image: Image.Image) -> bool:
    """Whether a file has more frames or pages; Pillow looks at the second one at most."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - the first frame is good even if the second one is not
        return False


def _decode(image: Image.Image) -> Image.Image:
    return to_rgb(load_upright(image))


def load_upright(image: Image.Image) -> Image.Image:
    """The pixels of an opened image, rotated as EXIF says, in the mode of the file."""
    image.load()
    if 0 in image.size:
        raise ImageError("the image has no pixels")
    return _apply_exif_orientation(image)


@contextmanager
def raise_image_errors() -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError of one line."""
    with collect_decoder_messages() as messages:
        try:
            yield
        except UnidentifiedImageError:
            raise ImageError("not an image in a format that camcli reads") from None
        except ImageError:
            raise
        except Image.DecompressionBombError:
            reason = "too many pixels to decode safely; scale the image down first"
            raise ImageError(reason) from None
        except Exception as error:  # noqa: BLE001 - decoders raise anything on a broken file
            reason = describe_image_error(error)
            detail = f" ({to_one_line(messages[0])})" if messages else ""
            raise ImageError(f"{reason}{detail}") from None


@contextmanager
def _open_regular_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file, which may have changed into something else since camcli listed it."""
    with open(path, "rb", opener=_open_nonblocking) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not a regular file")
        if not found.st_size:
            raise ImageError("the file is empty")
        yield file


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # do not wait for a pipe


@cache
def _list_supported_formats() -> tuple[str, ...]:
    """The formats of IMAGE_FORMATS that this build of Pillow supports.

    `Image.init` would import the plugins of forty more.
    """
    for name in IMAGE_PLUGINS:
        with suppress(ImportError):  # an older Pillow lacks some
            import_module(f"PIL.{name}ImagePlugin")
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Rotate an image as EXIF says. Reads only that tag: Pillow fails on other, broken tags."""
    turn = _read_exif_transpose(image)
    return image if turn is None else image.transpose(turn)


def _read_exif_transpose(image: Image.Image) -> Image.Transpose | None:
    try:
        return EXIF_TRANSPOSES.get(int(image.getexif().get(EXIF_ORIENTATION_TAG) or 0))
    except Exception:  # noqa: BLE001 - the pixels are good even if EXIF is not
        return None


def load_exif_transpose(path: Path) -> Image.Transpose | None:
    """The rotation that `load_image` applies to an existing file; annotations need it too."""
    if not os.path.isfile(path):
        return None
    with (
        collect_decoder_messages(),
        suppress(UnidentifiedImageError),  # an array has no EXIF
        Image.open(path, formats=_list_supported_formats()) as opened,
    ):
        return _read_exif_transpose(opened)
    return None


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB; transparent pixels become white."""
    if is_deep_grey(image):
        image = Image.fromarray(np.rint(scale_deep_grey(image)).astype(np.uint8))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        white = Image.new("RGBA", layered.size, "white")
        image = Image.alpha_composite(white, layered)
    return image.convert("RGB")


def is_deep_grey(image: Image.Image) -> bool:
    """Whether an image has grey values of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def scale_deep_grey(image: Image.Image) -> NDArray[np.float64]:
    """Scale grey values of 16 or 32 bits to 0..255; Pillow's own conversion would clip them."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise ImageError(
            "grey values outside 0..65535 have no standard scale; save the image with 16 bits"
        )
    if image.mode == "F":
        values = values * 255 if values.max() <= 1 else values
    elif image.mode.startswith("I;16") or values.max() > 255:
        values = values / 257
    if values.max() > 255.5:
        raise ImageError(
            "floating-point values above 255 have no standard scale; save the image with 16 bits"
        )
    return values
