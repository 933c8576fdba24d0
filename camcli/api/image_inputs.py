"""Convert paths, PIL images, arrays and tensors to named PIL images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from camcli.core.errors import ImageError, UsageError
from camcli.core.types import Failure, ImageSource
from camcli.io.discovery import find_image_sources
from camcli.io.images import decode_image

if TYPE_CHECKING:
    from torch import Tensor

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any] | Tensor"


def is_single_image(images: ImageLike | Iterable[ImageLike]) -> bool:
    """Whether this is one image: a file, a PIL image, (H,W), (H,W,3) or (3,H,W) values."""
    if isinstance(images, str | os.PathLike):
        is_glob = any(c in os.fspath(images) for c in "*?[") and not os.path.lexists(images)
        return not os.path.isdir(images) and not is_glob
    if _is_array(images):
        return int(getattr(images, "ndim", 0)) < 4
    is_file = hasattr(images, "read")  # an open file gives lines, not images
    return isinstance(images, Image.Image) or is_file or not isinstance(images, Iterable)


def iter_images(
    images: ImageLike | Iterable[ImageLike], channel_count: int = 3
) -> Iterator[ImageSource | Failure]:
    """Each image in order. A folder or a glob gives every image that it names.

    For a network of another number of channels than three, images and arrays keep their bands.
    """
    is_path = isinstance(images, str | os.PathLike)
    items: Iterable[Any] = [images] if is_path or is_single_image(images) else images  # type: ignore[assignment]  # no path, not single: many
    for number, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            yield from _find_sources(os.fspath(item))
        else:
            yield _create_source(item, f"image {number}", channel_count)


def _find_sources(path: str) -> Sequence[ImageSource | Failure]:
    try:
        return find_image_sources([path], (), Path(os.devnull))
    except UsageError as error:  # the path names no image
        return [Failure(path, path, str(error).removeprefix(f"{path}: "))]


def _create_source(values: Any, name: str, channel_count: int) -> ImageSource | Failure:
    convert = to_image if channel_count == 3 else _to_bands
    try:
        return ImageSource(Path(name), name, name, image=convert(values))
    except ImageError as error:
        return Failure(name, name, str(error))


def to_image(values: Image.Image | np.ndarray[Any, Any] | Tensor) -> Image.Image:
    """Convert a PIL image, an array (H,W[,3]) or a tensor (3,H,W) to an upright RGB image.

    Whole numbers count from 0 to 255, fractions from 0 to 1. Raises ImageError for other values:
    a tensor that is normalized already is not an image.
    """
    if isinstance(values, Image.Image):
        return decode_image(values)
    if not _is_array(values):
        raise ImageError(f"a {type(values).__name__} is not an image; give a path, image or array")
    array = values if isinstance(values, np.ndarray) else _tensor_to_array(values)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or 0 in array.shape or array.shape[2:] not in ((), (3,)):
        raise ImageError(f"an array of shape {array.shape} is not an image: give (H, W, 3)")
    return Image.fromarray(_to_bytes(array)).convert("RGB")


def _to_bands(values: Any) -> Image.Image | np.ndarray[Any, Any]:
    """An image or array as it is, a tensor as an array. Raises ImageError for anything else."""
    if isinstance(values, Image.Image | np.ndarray):
        return values
    if not _is_array(values):
        raise ImageError(f"a {type(values).__name__} is not an image; give a path, image or array")
    return _tensor_to_array(values)


def _tensor_to_array(values: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's numbers; NumPy has no bfloat16, so fractions become float32."""
    try:
        dense = values.detach().cpu().resolve_conj().resolve_neg()
        return np.asarray(dense.float() if dense.is_floating_point() else dense)
    except Exception as error:
        raise ImageError(f"a tensor of {values.dtype} is not an image: {error}") from error


def _to_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype == np.bool_:
        array = array.astype(np.float32)
    scale, kind = (1, "0 to 255") if array.dtype.kind in "iu" else (255, "0 to 1")
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ImageError(f"an array of {array.dtype} with these values is not an image")
    if array.min() < 0 or array.max() > 255 / scale:
        raise ImageError(
            f"values from {array.min():g} to {array.max():g} are not an image of {array.dtype}, "
            f"which has {kind}; give the image before it is normalized"
        )
    return np.rint(array * np.float64(scale)).astype(np.uint8)


def _is_array(values: Any) -> bool:
    """Whether the value is an array or a tensor; this does not import torch."""
    return isinstance(values, np.ndarray) or (hasattr(values, "detach") and hasattr(values, "ndim"))
