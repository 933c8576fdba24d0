"""Masks over images and maps: channels, positions, squares, random grids."""

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
        return create_map_masks(self.activations[b, channel_indices], size)

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

    def sum_weighted(self, scores: Tensor) -> Tensor:
        """The sum of all masks, each times the score of its mask: (B,C) -> (B,H,W)."""
        weights = scores.gather(1, self.representative_channels).where(self.varying_channels, 0)
        every = torch.arange(weights.shape[1], device=weights.device)
        return torch.stack(
            [
                (own[:, None, None, None] * self.create_masks(b, every)).sum(dim=(0, 1))
                for b, own in enumerate(weights)
            ]
        )


def create_channel_masks(activations: Tensor, inputs: Tensor, channels: int) -> ChannelMasks:
    """The masks of the channels that vary most; constant channels give no mask.

    Many channels of deep layers have one non-zero position. After min-max such channels are equal.
    """
    flat = activations.flatten(2)
    sound = choose_strongest_channels(activations, channels) & (flat.amax(dim=2) > flat.amin(dim=2))
    rows = torch.cat([normalize_tensor(flat, (2,)), sound[:, :, None]], dim=2)
    same = find_first_equal_rows(rows)
    own = torch.arange(sound.shape[1], device=sound.device)
    return ChannelMasks(activations, inputs, sound & (same == own), same, sound)


def find_first_equal_rows(rows: Tensor) -> Tensor:
    """For each row of an image the index of the first row that equals it: (B,C,N) -> (B,C)."""
    return torch.stack([_find_first_equal_row(own) for own in rows])


def _find_first_equal_row(rows: Tensor) -> Tensor:
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


def select_strongest_channels(activations: Tensor, channels: int) -> Tensor:
    """The channels that vary most, or all of them for 0: (B,C,h,w) -> (B,N,h,w)."""
    chosen = choose_strongest_channels(activations, channels)
    return activations[chosen].reshape(len(activations), -1, *activations.shape[2:])


def group_channels(terms: Tensor, groups: int, quantile: float) -> Tensor:
    """Sums over groups of channels, 0 up to a quantile of each: (B,C,h,w) -> (B,G,h,w)."""
    parts = terms.chunk(groups, dim=1)
    sums = torch.stack([part.sum(dim=1) for part in parts], dim=1).relu()
    # One image at a time: quantile refuses very large tensors.
    limits = torch.stack([own.flatten(1).quantile(quantile, dim=1) for own in sums])
    return sums.where(sums > limits[:, :, None, None], 0)


def create_map_masks(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps as masks, upsampled and min-maxed: (B,h,w) -> (B,1,H,W)."""
    return normalize_tensor(resize_maps(maps, size), (1, 2))[:, None]


def add_details(coarse: Tensor, fine: Tensor) -> Tensor:
    """A coarse map (B,h,w) with the details of a fine one (B,H,W): (B,H,W)."""
    small, large = ((maps.shape[1], maps.shape[2]) for maps in (coarse, fine))
    level = resize_maps(resize_maps(fine, small), large)
    details = torch.where(level > 0, fine / level, 0)
    return details * resize_maps(coarse, large)


def create_position_masks(size: tuple[int, int], positions: Tensor, *, gaussian: bool) -> Tensor:
    """Masks that show one position of a map, or its 3x3 neighbours too: (n,) -> (n,1,h,w)."""
    rows, cols = size
    masks = torch.nn.functional.one_hot(positions, rows * cols).float().reshape(-1, 1, rows, cols)
    if not gaussian:
        return masks
    line = masks.new_tensor([0.25, 0.5, 0.25])
    return torch.nn.functional.conv2d(masks, (line[:, None] * line)[None, None], padding=1)


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
