"""New inputs out of cached features: windows, mixtures, and pieces of one sample in another.

The teacher's last layers then label the same mixture exactly. Cutting and mixing features costs
almost nothing; running the CNN on cut and mixed photographs would cost most of the training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from recipes.vit_lite0.feature_cache import ViewFeatures

GRID_CELLS = 7  # cells on a side of the deep features; the middle features are twice as fine
WINDOW_SIDES = (4, 5, 6, 7)  # cells
WINDOW_SIDE_PROBABILITIES = (0.2, 0.25, 0.25, 0.3)
SMALLER_WINDOW_PROBABILITY, MIX_PROBABILITY, PASTE_PROBABILITY = 0.8, 0.25, 0.4
MIX_BETA = 0.8  # both parameters of the beta distribution of a mixture's share
MIN_MIX_SHARE = 0.7  # a mixture belongs to its first photograph from this share on
MIN_VISIBLE_PEAK = 0.4  # share of a map's maximum; below it, the object is outside the window


@dataclass(frozen=True, slots=True)
class DistillationData:
    """The views, and for each photograph its map (n, 28, 28) and the class (n,) of that map."""

    views: ViewFeatures
    maps: Tensor
    class_indices: Tensor


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """A batch of windows: features (B,2h,2w,112) and (B,h,w,320).

    `corner` is the window's top left cell on the grid of the middle features. `class_maps` are of
    the sample's class, `object_maps` of all objects in the sample (B,2h,2w). `class_visibility`
    (B,) is 0 where little of the sample's class is visible, else 1.
    """

    middle: Tensor
    deep: Tensor
    corner: tuple[int, int]
    class_maps: Tensor
    object_maps: Tensor
    class_visibility: Tensor
    class_indices: Tensor


@dataclass(frozen=True, slots=True)
class CellWindow:
    """A rectangle of cells on the grid of the deep features."""

    top: int
    left: int
    rows: int
    cols: int

    def to_slices(self, fineness: int) -> tuple[slice, slice, slice]:
        """The rectangle in all samples, on a grid that is `fineness` times as fine."""
        return (
            slice(None),
            slice(fineness * self.top, fineness * (self.top + self.rows)),
            slice(fineness * self.left, fineness * (self.left + self.cols)),
        )


def create_feature_batch(
    data: DistillationData, view_indices: Tensor, generator: np.random.Generator
) -> FeatureBatch:
    """The views (B,), changed at random: all in the same way, each with another of the batch."""
    batch = _crop_window(data, view_indices, generator)
    kind = generator.random()
    if kind < MIX_PROBABILITY:
        return _mix_samples(batch, generator)
    return _paste_samples(batch, generator) if kind < MIX_PROBABILITY + PASTE_PROBABILITY else batch


def _crop_window(
    data: DistillationData, view_indices: Tensor, generator: np.random.Generator
) -> FeatureBatch:
    mirror = generator.random() < 0.5
    window = _sample_window(generator)
    views = data.views
    middle, deep = views.middle[view_indices].float(), views.deep[view_indices].float()
    if mirror:
        middle, deep = middle.flip(2), deep.flip(2)
    maps = _warp_maps(data, view_indices, mirror=mirror, window=window)
    return FeatureBatch(
        middle=middle[window.to_slices(2)],
        deep=deep[window.to_slices(1)],
        corner=(2 * window.top, 2 * window.left),
        class_maps=maps,
        object_maps=maps,
        class_visibility=_compute_visibility(maps),
        class_indices=data.class_indices[view_indices // views.views_per_image],
    )


def _sample_window(generator: np.random.Generator) -> CellWindow:
    smaller = generator.random() < SMALLER_WINDOW_PROBABILITY
    rows, cols = (
        int(generator.choice(WINDOW_SIDES, p=WINDOW_SIDE_PROBABILITIES)) if smaller else GRID_CELLS
        for _ in range(2)
    )
    top, left = (int(generator.integers(GRID_CELLS + 1 - side)) for side in (rows, cols))
    return CellWindow(top, left, rows, cols)


def _warp_maps(
    data: DistillationData, view_indices: Tensor, *, mirror: bool, window: CellWindow
) -> Tensor:
    """The photographs' maps in the window of their views: (B, 2h, 2w)."""
    views = data.views
    x = (2 * window.left + torch.arange(2 * window.cols) + 0.5) / (2 * GRID_CELLS)
    y = (2 * window.top + torch.arange(2 * window.rows) + 0.5) / (2 * GRID_CELLS)
    x0, y0, x1, y1 = (edge[:, None] for edge in views.rectangles[view_indices].unbind(1))
    x = (1 - x if mirror else x)[None]
    x = torch.where(views.is_mirrored[view_indices][:, None], 1 - x, x)
    x, y = x0 + x * (x1 - x0), y0 + y[None] * (y1 - y0)
    rows, cols = 2 * window.rows, 2 * window.cols
    positions = torch.stack(
        [x[:, None].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, cols)], dim=-1
    )
    maps = data.maps[view_indices // views.views_per_image][:, None]
    warped = torch.nn.functional.grid_sample(
        maps, positions * 2 - 1, align_corners=False, padding_mode="border"
    )
    return warped[:, 0]


def _mix_samples(batch: FeatureBatch, generator: np.random.Generator) -> FeatureBatch:
    """Each sample with a smaller share of another."""
    number = len(batch.class_indices)
    share = torch.from_numpy(generator.beta(MIX_BETA, MIX_BETA, (number, 1, 1))).float()
    share = torch.maximum(share, 1 - share)
    other, wide = torch.from_numpy(generator.permutation(number)), share[..., None]
    return replace(
        batch,
        middle=wide * batch.middle + (1 - wide) * batch.middle[other],
        deep=wide * batch.deep + (1 - wide) * batch.deep[other],
        object_maps=share * batch.class_maps + (1 - share) * batch.class_maps[other],
        class_visibility=batch.class_visibility * (share[:, 0, 0] > MIN_MIX_SHARE),
    )


def _paste_samples(batch: FeatureBatch, generator: np.random.Generator) -> FeatureBatch:
    """Each sample with a rectangle of another in the same place."""
    _, rows, cols, _ = batch.deep.shape
    height, width = int(generator.integers(2, rows)), int(generator.integers(2, cols))
    top, left = (
        int(generator.integers(rows + 1 - height)),
        int(generator.integers(cols + 1 - width)),
    )
    other = torch.from_numpy(generator.permutation(len(batch.class_indices)))
    window = CellWindow(top, left, height, width)
    coarse, fine = window.to_slices(1), window.to_slices(2)
    middle, deep = batch.middle.clone(), batch.deep.clone()
    objects, own = batch.class_maps.clone(), batch.class_maps.clone()
    middle[fine], deep[coarse] = batch.middle[other][fine], batch.deep[other][coarse]
    objects[fine], own[fine] = batch.class_maps[other][fine], 0
    return replace(
        batch,
        middle=middle,
        deep=deep,
        class_maps=own,
        object_maps=objects,
        class_visibility=_compute_visibility(own),
    )


def _compute_visibility(maps: Tensor) -> Tensor:
    """1 where a map (B,H,W) still has a peak, so that its class is visible, else 0: (B,)."""
    return (maps.amax(dim=(1, 2)) > MIN_VISIBLE_PEAK).float()
