"""One step of the path of guided integrated gradients, for all images of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# What is left of a step below this share of the whole way is rounding.
TINY_SHARE = 1e-7


@dataclass(frozen=True, slots=True)
class PathLimits:
    """Where a step ends: at `mean` of the way, with no value more than `distance` from it.

    `fraction` of the values, those with the smallest gradients, move at a time.
    """

    mean: float
    distance: float
    fraction: float

    @property
    def first(self) -> float:
        """The share of its way that each value must have gone."""
        return max(self.mean - self.distance, 0.0)

    @property
    def last(self) -> float:
        """The share of its way that no value may exceed."""
        return min(self.mean + self.distance, 1.0)


def advance_path(reached: Tensor, ways: Tensor, slopes: Tensor, limits: PathLimits) -> Tensor:
    """The share (B,C,H,W) of its way that each value has gone after one more step.

    `ways` are the lengths of the ways, `slopes` the absolute gradients. The values with the
    smallest slopes move as far as they may, then the next ones, until the mean of all shares,
    weighted with the ways, is that of the step. Each image takes its own path.
    """
    shape, count = reached.shape, reached[0].numel()
    shares, lengths = reached.flatten(1).clamp(min=limits.first), ways.flatten(1)
    goal, whole = limits.mean * lengths.sum(dim=1), lengths.sum(dim=1)
    rank = math.floor(limits.fraction * (count - 1)) + 1
    waiting = slopes.flatten(1).where(lengths > 0, torch.inf)
    is_short = whole > 0
    while True:
        missing = goal - (lengths * shares).sum(dim=1)
        is_short = is_short & (missing > TINY_SHARE * whole)
        waiting = waiting.where(shares < limits.last, torch.inf)
        chosen = waiting <= waiting.kthvalue(rank, dim=1, keepdim=True).values
        chosen &= waiting.isfinite() & is_short[:, None]
        if not chosen.any():
            return shares.reshape(shape)
        reachable = (lengths * (limits.last - shares) * chosen).sum(dim=1)
        part = missing / reachable.where(reachable > 0, 1)
        moved = shares + part[:, None] * (limits.last - shares)
        # If all of them arrive, the next ones move too; the end is exact, so that none moves twice.
        is_short = part >= 1
        shares = torch.where(is_short[:, None], limits.last, moved).where(chosen, shares)
