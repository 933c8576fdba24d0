"""New inputs out of cached features: windows, mixtures, and pieces of one in another.

The teacher's last layers are asked about the same mixture, so that it is labelled exactly: cutting
and mixing features costs nothing beside running the CNN on cut and mixed photographs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from camcli.training.distillation.feature_cache import ViewFeatures

GRID_CELLS = 7  # of the deep features; those of the middle are twice as fine
WINDOW_SIDES, WINDOW_PROBABILITIES = (
    (4, 5, 6, 7),
    (0.2, 0.25, 0.25, 0.3),
)  # cells of a window's side
SMALLER_WINDOW_PROBABILITY, MIX_PROBABILITY, PASTE_PROBABILITY = 0.8, 0.25, 0.4  # how often
MIX_BETA = 0.8
MIN_MIX_SHARE = 0.7  # the share from which a mixture is of its first photograph
MIN_VISIBLE_PEAK = 0.4  # of a map's maximum: less, and the object is not in the window


@dataclass(frozen=True, slots=True)
class DistillationData:
    """The views, and of each photograph its map (n, 28, 28) and the class (n,) that it is of."""

    views: ViewFeatures
    maps: Tensor
    class_indices: Tensor


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """A batch: features (B,2h,2w,112) and (B,h,w,320) of a window whose corner is at `at`.

    `own` is the map of the class that the sample is of, `objects` of all that is in it
    (B,2h,2w); `sure` (B,) is 0 where that class is hardly to be seen.
    """

    middle: Tensor
    deep: Tensor
    corner: tuple[int, int]
    class_maps: Tensor
    object_maps: Tensor
    class_visibility: Tensor
    class_indices: Tensor


def create_feature_batch(
    data: DistillationData, which: Tensor, generator: np.random.Generator
) -> FeatureBatch:
    """The views `which` (B,), changed at random: all in the same way, each with another's."""
    plain = _crop_window(data, which, generator)
    kind = generator.random()
    if kind < MIX_PROBABILITY:
        return _mix_samples(plain, generator)
    return _paste_samples(plain, generator) if kind < MIX_PROBABILITY + PASTE_PROBABILITY else plain


def _crop_window(known: DistillationData, which: Tensor, draw: np.random.Generator) -> FeatureBatch:
    mirror = draw.random() < 0.5
    smaller = draw.random() < SMALLER_WINDOW_PROBABILITY
    rows, cols = (
        int(draw.choice(WINDOW_SIDES, p=WINDOW_PROBABILITIES)) if smaller else GRID_CELLS
        for _ in range(2)
    )
    top, left = (int(draw.integers(GRID_CELLS + 1 - side)) for side in (rows, cols))
    views = known.views
    middle, deep = views.middle[which].float(), views.deep[which].float()
    if mirror:
        middle, deep = middle.flip(2), deep.flip(2)
    own = _warp_maps(known, which, mirror=mirror, window=(top, left, rows, cols))
    return FeatureBatch(
        middle[_slice_cells(top, left, rows, cols, 2)],
        deep[_slice_cells(top, left, rows, cols, 1)],
        (2 * top, 2 * left),
        own,
        own,
        _compute_visibility(own),
        known.class_indices[which // views.views_per_image],
    )


def _warp_maps(
    known: DistillationData, which: Tensor, *, mirror: bool, window: tuple[int, int, int, int]
) -> Tensor:
    """The photographs' maps in the window of their views: (B, 2h, 2w)."""
    top, left, rows, cols = window
    across = (2 * left + torch.arange(2 * cols) + 0.5) / (2 * GRID_CELLS)
    down = (2 * top + torch.arange(2 * rows) + 0.5) / (2 * GRID_CELLS)
    x0, y0, x1, y1 = (edge[:, None] for edge in known.views.rectangles[which].unbind(1))
    across = (1 - across if mirror else across)[None]
    across = torch.where(known.views.is_mirrored[which][:, None], 1 - across, across)
    x, y = x0 + across * (x1 - x0), y0 + down[None] * (y1 - y0)
    where = torch.stack(
        [x[:, None].expand(-1, 2 * rows, -1), y[:, :, None].expand(-1, -1, 2 * cols)], dim=-1
    )
    maps = known.maps[which // known.views.views_per_image][:, None]
    found = torch.nn.functional.grid_sample(
        maps, where * 2 - 1, align_corners=False, padding_mode="border"
    )
    return found[:, 0]


def _mix_samples(plain: FeatureBatch, draw: np.random.Generator) -> FeatureBatch:
    """Each sample with a smaller share of another."""
    number = len(plain.class_indices)
    share = torch.from_numpy(draw.beta(MIX_BETA, MIX_BETA, (number, 1, 1))).float()
    share = torch.maximum(share, 1 - share)
    other, wide = torch.from_numpy(draw.permutation(number)), share[..., None]
    return replace(
        plain,
        middle=wide * plain.middle + (1 - wide) * plain.middle[other],
        deep=wide * plain.deep + (1 - wide) * plain.deep[other],
        object_maps=share * plain.class_maps + (1 - share) * plain.class_maps[other],
        class_visibility=plain.class_visibility * (share[:, 0, 0] > MIN_MIX_SHARE),
    )


def _paste_samples(plain: FeatureBatch, draw: np.random.Generator) -> FeatureBatch:
    """Each sample with a rectangle of another in the same place."""
    _, rows, cols, _ = plain.deep.shape
    height, width = int(draw.integers(2, rows)), int(draw.integers(2, cols))
    top, left = int(draw.integers(rows + 1 - height)), int(draw.integers(cols + 1 - width))
    other = torch.from_numpy(draw.permutation(len(plain.class_indices)))
    coarse, fine = (_slice_cells(top, left, height, width, times) for times in (1, 2))
    middle, deep, objects, own = (
        part.clone() for part in (plain.middle, plain.deep, plain.class_maps, plain.class_maps)
    )
    middle[fine], deep[coarse] = plain.middle[other][fine], plain.deep[other][coarse]
    objects[fine], own[fine] = plain.class_maps[other][fine], 0
    return replace(
        plain,
        middle=middle,
        deep=deep,
        class_maps=own,
        object_maps=objects,
        class_visibility=_compute_visibility(own),
    )


def _compute_visibility(own: Tensor) -> Tensor:
    """1 where enough of a map (B,H,W) is left for its class to be seen, else 0: (B,)."""
    return (own.amax(dim=(1, 2)) > MIN_VISIBLE_PEAK).float()


def _slice_cells(
    top: int, left: int, rows: int, cols: int, fine: int
) -> tuple[slice, slice, slice]:
    """A rectangle of cells, in features that are `fine` times as fine, of all samples."""
    return (
        slice(None),
        slice(fine * top, fine * (top + rows)),
        slice(fine * left, fine * (left + cols)),
    )
