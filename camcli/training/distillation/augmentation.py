"""New inputs out of cached features: windows, mixtures, and pieces of one in another.

The teacher's last layers are asked about the same mixture, so that it is labelled exactly: cutting
and mixing features costs nothing beside running the CNN on cut and mixed photographs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from camcli.training.distillation.feature_cache import Views

CELLS = 7  # of the deep features; those of the middle are twice as fine
WINDOWS, ODDS = (4, 5, 6, 7), (0.2, 0.25, 0.25, 0.3)  # cells of a window's side
CUT_OUT, MIX, PASTE = 0.8, 0.25, 0.4  # how often
BETA = 0.8
SURE = 0.7  # the share from which a mixture is of its first photograph
VISIBLE = 0.4  # of a map's maximum: less, and the object is not in the window


@dataclass(frozen=True, slots=True)
class Known:
    """The views, and of each photograph its map (n, 28, 28) and the class (n,) that it is of."""

    views: Views
    maps: Tensor
    classes: Tensor


@dataclass(frozen=True, slots=True)
class Mixed:
    """A batch: features (B,2h,2w,112) and (B,h,w,320) of a window whose corner is at `at`.

    `own` is the map of the class that the sample is of, `objects` of all that is in it
    (B,2h,2w); `sure` (B,) is 0 where that class is hardly to be seen.
    """

    middle: Tensor
    deep: Tensor
    at: tuple[int, int]
    own: Tensor
    objects: Tensor
    sure: Tensor
    classes: Tensor


def batch(known: Known, which: Tensor, draw: np.random.Generator) -> Mixed:
    """The views `which` (B,), changed at random: all in the same way, each with another's."""
    plain = _window(known, which, draw)
    kind = draw.random()
    if kind < MIX:
        return _mix(plain, draw)
    return _paste(plain, draw) if kind < MIX + PASTE else plain


def _window(known: Known, which: Tensor, draw: np.random.Generator) -> Mixed:
    mirror = draw.random() < 0.5
    smaller = draw.random() < CUT_OUT
    rows, cols = (int(draw.choice(WINDOWS, p=ODDS)) if smaller else CELLS for _ in range(2))
    top, left = (int(draw.integers(CELLS + 1 - side)) for side in (rows, cols))
    views = known.views
    middle, deep = views.middle[which].float(), views.deep[which].float()
    if mirror:
        middle, deep = middle.flip(2), deep.flip(2)
    own = _placed(known, which, mirror=mirror, window=(top, left, rows, cols))
    return Mixed(
        middle[_cells(top, left, rows, cols, 2)],
        deep[_cells(top, left, rows, cols, 1)],
        (2 * top, 2 * left),
        own,
        own,
        _visible(own),
        known.classes[which // views.each],
    )


def _placed(
    known: Known, which: Tensor, *, mirror: bool, window: tuple[int, int, int, int]
) -> Tensor:
    """The photographs' maps in the window of their views: (B, 2h, 2w)."""
    top, left, rows, cols = window
    across = (2 * left + torch.arange(2 * cols) + 0.5) / (2 * CELLS)
    down = (2 * top + torch.arange(2 * rows) + 0.5) / (2 * CELLS)
    x0, y0, x1, y1 = (edge[:, None] for edge in known.views.rectangles[which].unbind(1))
    across = (1 - across if mirror else across)[None]
    across = torch.where(known.views.mirrored[which][:, None], 1 - across, across)
    x, y = x0 + across * (x1 - x0), y0 + down[None] * (y1 - y0)
    where = torch.stack(
        [x[:, None].expand(-1, 2 * rows, -1), y[:, :, None].expand(-1, -1, 2 * cols)], dim=-1
    )
    maps = known.maps[which // known.views.each][:, None]
    found = torch.nn.functional.grid_sample(
        maps, where * 2 - 1, align_corners=False, padding_mode="border"
    )
    return found[:, 0]


def _mix(plain: Mixed, draw: np.random.Generator) -> Mixed:
    """Each sample with a smaller share of another."""
    number = len(plain.classes)
    share = torch.from_numpy(draw.beta(BETA, BETA, (number, 1, 1))).float()
    share = torch.maximum(share, 1 - share)
    other, wide = torch.from_numpy(draw.permutation(number)), share[..., None]
    return replace(
        plain,
        middle=wide * plain.middle + (1 - wide) * plain.middle[other],
        deep=wide * plain.deep + (1 - wide) * plain.deep[other],
        objects=share * plain.own + (1 - share) * plain.own[other],
        sure=plain.sure * (share[:, 0, 0] > SURE),
    )


def _paste(plain: Mixed, draw: np.random.Generator) -> Mixed:
    """Each sample with a rectangle of another in the same place."""
    _, rows, cols, _ = plain.deep.shape
    height, width = int(draw.integers(2, rows)), int(draw.integers(2, cols))
    top, left = int(draw.integers(rows + 1 - height)), int(draw.integers(cols + 1 - width))
    other = torch.from_numpy(draw.permutation(len(plain.classes)))
    coarse, fine = (_cells(top, left, height, width, times) for times in (1, 2))
    middle, deep, objects, own = (
        part.clone() for part in (plain.middle, plain.deep, plain.own, plain.own)
    )
    middle[fine], deep[coarse] = plain.middle[other][fine], plain.deep[other][coarse]
    objects[fine], own[fine] = plain.own[other][fine], 0
    return replace(plain, middle=middle, deep=deep, own=own, objects=objects, sure=_visible(own))


def _visible(own: Tensor) -> Tensor:
    """1 where enough of a map (B,H,W) is left for its class to be seen, else 0: (B,)."""
    return (own.amax(dim=(1, 2)) > VISIBLE).float()


def _cells(top: int, left: int, rows: int, cols: int, fine: int) -> tuple[slice, slice, slice]:
    """A rectangle of cells, in features that are `fine` times as fine, of all samples."""
    return (
        slice(None),
        slice(fine * top, fine * (top + rows)),
        slice(fine * left, fine * (left + cols)),
    )
