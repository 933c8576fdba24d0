"""Cut images into segments: superpixels, squares, or overlapping segments of several scales."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camcli.core.maps import normalize_tensor

Labels = NDArray[np.int64]
Masks = NDArray[np.bool_]

# SLIC in CIELAB, whose lightness ends at 100. Twice the usual compactness gives smooth borders.
SLIC_COMPACTNESS = 20.0

# XRAI's segmentation: as in its authors' code, whose parameters hold for images of this size.
FELZENSZWALB_SIZE = (224, 224)
FELZENSZWALB_SCALES = (50, 100, 150, 250, 500, 1200)
FELZENSZWALB_SIGMA = 0.8
FELZENSZWALB_MIN_AREA = 150
DILATION_RADIUS = 5


@dataclass(frozen=True, slots=True)
class Segments:
    """Each image of a batch cut into parts: labels (B,H,W), image b from 0 to `counts[b]` - 1."""

    labels: Tensor
    counts: tuple[int, ...]

    def spread(self, values: list[Tensor]) -> Tensor:
        """Put each segment's value at its pixels: one (S,) for each image -> (B,H,W)."""
        pairs = zip(values, self.labels, strict=True)
        return torch.stack([own.to(labels.device)[labels] for own, labels in pairs])


def cut_images(inputs: Tensor, segment_count: int, cut: str) -> Segments:
    """Cut each image into about so many parts: `cut` is "slic" or "grid"."""
    size = (inputs.shape[2], inputs.shape[3])
    if cut == "grid":
        each = [_cut_into_squares(size, segment_count)] * len(inputs)
    else:
        each = [_cut_into_superpixels(_to_pixels(image), segment_count) for image in inputs]
    counts = tuple(int(labels.max()) + 1 for labels in each)
    return Segments(torch.from_numpy(np.stack(each)).to(inputs.device), counts)


def _to_pixels(image: Tensor) -> NDArray[np.float32]:
    """An input (C,H,W) as an image (H,W,C) in [0, 1]."""
    pixels: NDArray[np.float32] = normalize_tensor(image, (0, 1, 2)).permute(1, 2, 0).cpu().numpy()
    return pixels


def _cut_into_squares(size: tuple[int, int], segment_count: int) -> Labels:
    side = sqrt(size[0] * size[1] / segment_count)
    rows, cols = (max(1, round(length / side)) for length in size)
    row, col = np.arange(size[0]) * rows // size[0], np.arange(size[1]) * cols // size[1]
    return np.add.outer(row * cols, col)


def _cut_into_superpixels(pixels: NDArray[np.float32], segment_count: int) -> Labels:
    """SLIC, of an RGB image in CIELAB."""
    from skimage.segmentation import slic

    is_rgb = pixels.shape[2] == 3
    found = slic(
        pixels,
        n_segments=segment_count,
        compactness=SLIC_COMPACTNESS if is_rgb else SLIC_COMPACTNESS / 100,
        sigma=1,
        convert2lab=is_rgb,
        channel_axis=-1,
        start_label=0,
    )
    # Numbers may be missing among the labels.
    return np.unique(found, return_inverse=True)[1].reshape(found.shape)


def cut_into_overlapping_segments(image: Tensor) -> Masks:
    """Felzenszwalb's segments of an input (C,H,W) at several scales, dilated: (S,H,W)."""
    from skimage.segmentation import felzenszwalb
    from skimage.transform import resize

    pixels = 2 * _to_pixels(image) - 1
    sized = resize(pixels, FELZENSZWALB_SIZE, order=3, mode="edge", anti_aliasing=True)
    sides = zip(pixels.shape[:2], FELZENSZWALB_SIZE, strict=True)
    rows, cols = (((np.arange(n) + 0.5) * sized_n / n).astype(int) for n, sized_n in sides)
    masks: list[Masks] = []
    for scale in FELZENSZWALB_SCALES:
        with catch_warnings():
            simplefilter("ignore", RuntimeWarning)  # about more than three channels
            labels = felzenszwalb(
                sized, scale, FELZENSZWALB_SIGMA, FELZENSZWALB_MIN_AREA, channel_axis=-1
            )
        masks += _iter_dilated(labels[rows][:, cols])
    return np.stack(masks)


def _iter_dilated(labels: Labels) -> Iterator[Masks]:
    """Yield the mask of each label with all pixels that are at most 5 pixels away."""
    from scipy import ndimage

    def widen(part: slice) -> slice:
        return slice(max(part.start - DILATION_RADIUS, 0), part.stop + DILATION_RADIUS)

    for number, box in enumerate(ndimage.find_objects(labels + 1)):
        if box is not None:
            around: Any = tuple(map(widen, box))
            mask = np.zeros(labels.shape, np.bool_)
            distances = ndimage.distance_transform_edt(labels[around] != number)
            mask[around] = distances <= DILATION_RADIUS
            yield mask


def rank_regions(attribution: NDArray[np.float64], masks: Masks, min_area: int) -> Any:
    """XRAI's map (H,W): the density of the attribution in each region, the densest region first.

    The next region is that with the largest mean attribution over the pixels that it adds. A region
    that adds fewer than `min_area` pixels is left out. What no region covers gets its own mean.
    """
    values, masks = attribution.ravel(), masks.reshape(len(masks), -1)
    added_areas = masks.sum(axis=1)
    added_sums = np.array([values[mask].sum() for mask in masks])
    densities = np.zeros(values.shape)
    is_left = np.ones(values.shape, np.bool_)
    while (added_areas >= min_area).any():
        gains = np.where(added_areas >= min_area, added_sums / added_areas.clip(1), -np.inf)
        new = np.flatnonzero(masks[gains.argmax()] & is_left)
        densities[new] = values[new].mean()
        is_left[new] = False
        added_areas = added_areas - masks[:, new].sum(axis=1)
        added_sums = added_sums - masks[:, new] @ values[new]
    if is_left.any():
        densities[is_left] = values[is_left].mean()
    return densities.reshape(attribution.shape)
