"""Ranks of pixels by relevance: every mask of an evaluation is `rank < k`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from camcli.core.maps import resize_maps
from camcli.evaluation.datasets.annotations import hash_image_name

NEVER = 2**30  # the rank of a pixel that is not in view: no mask reaches it


@dataclass(frozen=True, slots=True)
class PixelRanks:
    """The pixels in view by relevance: rank 0 is the most relevant pixel.

    `most_first` and `least_first` are ranks (H,W), int32; a pixel out of view has the rank NEVER in
    both. `pixel_count` is the number N of pixels in view. `tied_share` is the share of pixels in
    the largest group of equal values.
    """

    most_first: Tensor
    least_first: Tensor
    pixel_count: int
    tied_share: float


def create_tie_order(image_name: str, pixel_count: int, seed: int) -> NDArray[np.int64]:
    """A random order of the pixels of an image, which decides ties; all maps share it."""
    generator = np.random.default_rng([seed, hash_image_name(image_name)])
    return generator.permutation(pixel_count)


def rank_pixels(
    pixel_map: Tensor, window: tuple[int, int, int, int], tie_order: NDArray[np.int64]
) -> PixelRanks:
    """Rank the pixels of a map (H,W) within a window (left, top, right, bottom).

    `order = p[argsort(-m[p])]` for the random order p, with a stable sort.
    """
    left, top, right, bottom = window
    values = pixel_map[top:bottom, left:right].flatten().numpy()
    order = tie_order[np.argsort(-values[tie_order], kind="stable")]
    ranks = np.empty(len(values), np.int32)
    ranks[order] = np.arange(len(values), dtype=np.int32)
    _, group_sizes = np.unique(values, return_counts=True)
    shape = (bottom - top, right - left)

    def place(inside: NDArray[np.int32]) -> Tensor:
        whole = torch.full(pixel_map.shape, NEVER, dtype=torch.int32)
        whole[top:bottom, left:right] = torch.from_numpy(inside.reshape(shape))
        return whole

    return PixelRanks(
        most_first=place(ranks),
        least_first=place(len(values) - 1 - ranks),
        pixel_count=len(values),
        tied_share=float(group_sizes.max() / len(values)),
    )


def resize_to_input(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a map (h,w) to the size of the input, as maps are resized: -> (H,W) float32."""
    return resize_maps(values.float()[None], size)[0]
