"""Masks over images: channels, squares, random grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from camcli.core.maps import normalize_tensor, resize_maps
from camcli.core.rng import create_uniform_noise

MASK_CHUNK_SIZE = 64  # random masks in memory at a time


@dataclass(frozen=True, slots=True)
class ChannelMasks:
    """A layer's channels as masks over the inputs; equal masks are scored once.

    `scored_channels` (B,C) marks the channels to score. `representative_channels` (B,C) has the
    scored channel that equals each channel. `varying_channels` (B,C) marks the channels with a
    weight.
    """

    activations: Tensor
    inputs: Tensor
    scored_channels: Tensor
    representative_channels: Tensor
    varying_channels: Tensor

    def create_masks(self, b: int, channel_indices: Tensor) -> Tensor:
        """Some channels of one image as masks, upsampled and min-maxed: (n,1,H,W)."""
        size = (self.inputs.shape[2], self.inputs.shape[3])
        return normalize_tensor(resize_maps(self.activations[b, channel_indices], size), (1, 2))[
            :, None
        ]

    def mask_image(self, b: int, channel_indices: Tensor) -> Tensor:
        """One image, multiplied with each of these masks: (n,3,H,W)."""
        return self.inputs[b] * self.create_masks(b, channel_indices)

    def weight_activations(
        self, compute_scores: Callable[[Tensor], Tensor], weights: str
    ) -> Tensor:
        """Each channel times the score of its mask, or times its softmax over channels."""
        scores = compute_scores(self.scored_channels).gather(1, self.representative_channels)
        if weights == "softmax":
            scores = scores.where(self.varying_channels, -torch.inf).softmax(dim=1)
        return scores.where(self.varying_channels, 0)[:, :, None, None] * self.activations


def create_channel_masks(activations: Tensor, inputs: Tensor, channels: int) -> ChannelMasks:
    """The masks of the channels that vary most; constant channels give no mask.

    Many channels of deep layers have one non-zero position. After min-max such channels are equal.
    """
    flat = activations.flatten(2)
    sound = choose_strongest_channels(activations, channels) & (flat.amax(dim=2) > flat.amin(dim=2))
    rows = torch.cat([normalize_tensor(flat, (2,)), sound[:, :, None]], dim=2)
    same = torch.stack([_find_first_equal_row(own) for own in rows])
    own = torch.arange(sound.shape[1], device=sound.device)
    return ChannelMasks(activations, inputs, sound & (same == own), same, sound)


def _find_first_equal_row(rows: Tensor) -> Tensor:
    """For each row the index of the first row that equals it: (C,N) -> (C,)."""
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    order = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(order, len(rows)).scatter_reduce(0, group, order, "amin")
    return first[group]


def choose_strongest_channels(activations: Tensor, channels: int) -> Tensor:
    """Mark the channels that vary most, or all of them for 0: (B,C,h,w) -> bool (B,C)."""
    spread = activations.flatten(2).std(dim=2)
    count = min(channels, spread.shape[1]) if channels > 0 else spread.shape[1]
    best = spread.topk(count, dim=1).indices
    return torch.zeros_like(spread, dtype=torch.bool).scatter(1, best, True)


def create_square_masks(size: tuple[int, int], window: int, stride: int) -> Tensor:
    """The pixels outside each square: bool (N,H,W). The last squares end at the border."""
    tops, lefts = (_compute_window_starts(length, window, stride) for length in size)
    shown = torch.ones(len(tops) * len(lefts), *size, dtype=torch.bool)
    for n, (top, left) in enumerate((t, le) for t in tops for le in lefts):
        shown[n, top : top + window, left : left + window] = False
    return shown


def _compute_window_starts(length: int, window: int, stride: int) -> list[int]:
    last = max(length - window, 0)
    return sorted({*range(0, last, stride), last})


@dataclass(frozen=True, slots=True)
class RandomMasks:
    """Random masks (N,H,W), created when used: an upsampled grid of open cells, cut to size."""

    open_cells: Tensor
    shifts: Tensor
    size: tuple[int, int]

    def __call__(self, mask_indices: Tensor) -> Tensor:
        """The masks with these indices: (n,H,W) in [0, 1]."""
        rows, cols = self.size
        mask_indices = mask_indices.cpu()
        high, wide = (-(-length // self.open_cells.shape[1]) for length in self.size)
        large = resize_maps(self.open_cells[mask_indices], (rows + high, cols + wide))
        cut = (self.shifts[mask_indices] * torch.tensor([high, wide])).long().tolist()
        return torch.stack(
            [m[y : y + rows, x : x + cols] for m, (y, x) in zip(large, cut, strict=True)]
        )

    def sum_weighted(self, weights: Tensor) -> Tensor:
        """The weighted sum of all masks: (B,N) -> (B,H,W)."""
        whole = weights.new_zeros(len(weights), *self.size)
        for which in torch.split(torch.arange(len(self.open_cells)), MASK_CHUNK_SIZE):
            masks = self(which).to(weights)
            whole += torch.einsum("bn,nhw->bhw", weights[:, which.to(weights.device)], masks)
        return whole


def create_random_masks(
    size: tuple[int, int], mask_count: int, cells_per_side: int, keep_probability: float, seed: int
) -> RandomMasks:
    """RISE's masks: cells open with `keep_probability`, shifted by less than one cell."""
    drawn = create_uniform_noise((mask_count, cells_per_side * cells_per_side + 2), seed)
    grid = (
        (drawn[:, :-2] < keep_probability)
        .float()
        .reshape(mask_count, cells_per_side, cells_per_side)
    )
    return RandomMasks(grid, drawn[:, -2:], size)
