"""The geometry between an image and the network's input, in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = TypeVar("Array", NDArray[np.float32], NDArray[np.float64])


def resize_map(heatmap: Float32Array, size: tuple[int, int]) -> Float32Array:
    """Resize one map bilinearly: (h, w) -> (H, W). Other threads can run at the same time."""
    resized = Image.fromarray(heatmap).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def normalize_array(values: Array) -> Array:
    """Min-max one array of finite values to [0, 1]; a constant array becomes zeros."""
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def crop_visible_map(heatmap: Float32Array, view: View, size: tuple[int, int]) -> Float32Array:
    """The part of a map that shows the image, at the resolution of the model's input (H, W).

    Upsample, cut off the padding, min-max: (h, w) -> (h', w') in [0, 1].
    """
    x0, y0, x1, y1 = view.compute_input_window(*size)
    return normalize_array(resize_map(heatmap, size)[y0:y1, x0:x1])


def map_to_original(visible_map: Float32Array, view: View) -> Float32Array:
    """Place the visible part of a map on the upright original: (h', w') -> (height, width).

    Pixels that a crop left out are NaN, because the map does not cover them.
    """
    left, top, right, bottom = view.visible_pixels
    whole = np.full((view.image_height, view.image_width), np.nan, np.float32)
    whole[top:bottom, left:right] = resize_map(visible_map, (bottom - top, right - left))
    return whole


Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Crops:
    """Several crops of one image, which is first resized to `canvas_size` (H, W).

    Each corner is (top, left, mirrored).
    """

    canvas_size: tuple[int, int]
    corners: tuple[tuple[int, int, bool], ...]


@dataclass(frozen=True, slots=True)
class View:
    """The rectangle of the upright original that the model's input shows, in original pixels.

    It may show only a part of the image (a crop) or reach beyond it (padding).
    """

    image_width: int
    image_height: int
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def from_whole_image(cls, width: int, height: int) -> View:
        """A view of the whole image."""
        return cls(width, height, 0, 0, width, height)

    @property
    def image_size(self) -> tuple[int, int]:
        """The width and height of the image."""
        return self.image_width, self.image_height

    @property
    def visible_rectangle(self) -> tuple[float, float, float, float]:
        """The visible part of the original: left, top, right, bottom."""
        return (
            max(self.left, 0.0),
            max(self.top, 0.0),
            min(self.right, float(self.image_width)),
            min(self.bottom, float(self.image_height)),
        )

    @property
    def visible_pixels(self) -> tuple[int, int, int, int]:
        """The visible pixels of the original, at least one: left, top, right, bottom."""
        left, top, right, bottom = (round(edge) for edge in self.visible_rectangle)
        left, top = min(left, self.image_width - 1), min(top, self.image_height - 1)
        return left, top, max(right, left + 1), max(bottom, top + 1)

    def compute_input_window(
        self, input_height: int, input_width: int
    ) -> tuple[int, int, int, int]:
        """The pixels of an input of H x W that show the image: left, top, right, bottom."""
        across, down = self.right - self.left, self.bottom - self.top
        left, top, right, bottom = self.visible_rectangle
        x0, x1 = (round((x - self.left) / across * input_width) for x in (left, right))
        y0, y1 = (round((y - self.top) / down * input_height) for y in (top, bottom))
        return min(x0, input_width - 1), min(y0, input_height - 1), max(x1, x0 + 1), max(y1, y0 + 1)

    def to_image_size(self, new_width: int, new_height: int) -> View:
        """The same view of the same image at another size."""
        x, y = new_width / self.image_width, new_height / self.image_height
        return View(
            new_width, new_height, self.left * x, self.top * y, self.right * x, self.bottom * y
        )
