"""Linear models of the score, in which each segment of an image is switched on or off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from camcli.core.rng import create_uniform_noise
from camcli.methods._superpixels import Segments, cut_images

if TYPE_CHECKING:
    from camcli.methods.perturbation import RescoreFunction


@dataclass(frozen=True, slots=True)
class States:
    """Altered images: `is_on` (N,S) tells which of S segments each shows; `weights` are (N,)."""

    is_on: Tensor
    weights: Tensor


def explain_segments(
    inputs: Tensor,
    rescore: RescoreFunction,
    create_states: Callable[[int], States],
    fit: Callable[[States, Tensor], Tensor],
    *,
    segments: int,
    cut: str,
    fill: str,
    score: str,
) -> Tensor:
    """Fit a linear model to each image's scores, and put the coefficients at the pixels: (B,H,W).

    `create_states` makes the states for a number of segments, `fit` the coefficients (S,) from
    states and scores. The other arguments are the options of the methods.
    """
    found = cut_images(inputs, segments, cut)
    by_count = {count: create_states(count) for count in set(found.counts)}
    states = [by_count[count] for count in found.counts]
    filled = fill_segments(inputs, found) if fill == "segment" else torch.zeros_like(inputs)

    def switch(b: int, which: Tensor) -> Tensor:
        is_on = states[b].is_on.to(which.device)[which][:, found.labels[b]]
        return inputs[b].where(is_on[:, None], filled[b])

    wanted = _mark_used(states).to(inputs.device)
    scores = rescore(switch, wanted, probability=score == "probability").double().cpu()
    pairs = zip(states, scores, strict=True)
    return found.spread([fit(own, row[: len(own.is_on)]) for own, row in pairs]).to(inputs)


def _mark_used(states: Sequence[States]) -> Tensor:
    """Which states each image has, where some have more than others: bool (B,N)."""
    counts = torch.tensor([len(own.is_on) for own in states])
    return torch.arange(int(counts.max())) < counts[:, None]


def fill_segments(inputs: Tensor, segments: Segments) -> Tensor:
    """Images (B,C,H,W) in which each segment has its mean colour."""
    filled = torch.empty_like(inputs)
    for image, labels, out in zip(inputs, segments.labels, filled, strict=True):
        sizes = labels.flatten().bincount()
        sums = image.new_zeros(len(image), len(sizes))
        sums.index_add_(1, labels.flatten(), image.flatten(1))
        out[:] = (sums / sizes)[:, labels]
    return filled


# --- LIME


def draw_states(segment_count: int, samples: int, width: float, seed: int) -> States:
    """LIME's states: all segments on, then each on with probability 1/2.

    The weights are exp(-d^2 / (2 width^2)), with the cosine distance d from all segments on.
    """
    is_on = create_uniform_noise((samples, segment_count), seed) < 0.5
    is_on[0] = True
    distances = 1 - is_on.double().mean(dim=1).sqrt()
    return States(is_on, torch.exp(-(distances**2) / (2 * width**2)))


def fit_ridge(states: States, scores: Tensor, penalty: float) -> Tensor:
    """The coefficients (S,) of weighted ridge regression, whose intercept has no penalty."""
    on, weights = states.is_on.double(), states.weights
    on = on - weights @ on / weights.sum()  # so that the intercept drops out
    weighted = weights[:, None] * on
    matrix = on.T @ weighted + penalty * torch.eye(on.shape[1], dtype=on.dtype)
    coefficients: Tensor = torch.linalg.solve(matrix, weighted.T @ scores)
    return coefficients


# --- KernelSHAP


def create_coalitions(segment_count: int, samples: int, seed: int) -> States:
    """KernelSHAP's states: none on, all on, and about `samples` others.

    Sizes that the samples suffice for, from 1 and S - 1 inwards, are taken completely. The others
    are drawn: a size by its share of the kernel, then a state of that size, and its complement.
    """
    shares = _compute_size_shares(segment_count)
    ends = torch.tensor([[False], [True]]).expand(2, segment_count)
    parts = [States(ends, torch.ones(2, dtype=torch.double))]
    left = samples
    for size in range(1, segment_count // 2 + 1):
        pair = sorted({size, segment_count - size})
        inner = torch.arange(size, segment_count - size + 1)
        count = len(pair) * comb(segment_count, size)
        if count > left * float(shares[pair].sum() / shares[inner].sum()) + 1e-6:
            parts.append(_draw_coalitions(shares, inner, left, seed))
            break
        parts += [_list_coalitions(shares, each) for each in pair]
        left -= count
    return States(torch.cat([p.is_on for p in parts]), torch.cat([p.weights for p in parts]))


def _compute_size_shares(segment_count: int) -> Tensor:
    """The weight of all states of each size in the Shapley kernel, 1 / (k (S - k)): (S+1,)."""
    sizes = torch.arange(segment_count + 1, dtype=torch.double)
    products = sizes * (segment_count - sizes)
    return torch.where(products > 0, 1 / products, 0)


def _list_coalitions(shares: Tensor, size: int) -> States:
    """All states of one size."""
    members = torch.tensor([*combinations(range(len(shares) - 1), size)])
    none = torch.zeros(len(members), len(shares) - 1, dtype=torch.bool)
    return States(none.scatter(1, members, True), (shares[size] / len(members)).expand(len(none)))


def _draw_coalitions(shares: Tensor, sizes: Tensor, samples: int, seed: int) -> States:
    """States of these sizes, each drawn with its complement; equal ones become one."""
    drawn = create_uniform_noise((max(1, samples // 2), len(shares)), seed).double()
    ends = shares[sizes].cumsum(dim=0)
    which = torch.searchsorted(ends, drawn[:, 0] * ends[-1], right=True)
    ranks = drawn[:, 1:].argsort(dim=1).argsort(dim=1)
    is_on = ranks < sizes[which.clamp(max=len(sizes) - 1)][:, None]
    is_on, counts = torch.unique(torch.cat([is_on, ~is_on]), dim=0, return_counts=True)
    return States(is_on, ends[-1] * counts / counts.sum())


def fit_shapley(states: States, scores: Tensor) -> Tensor:
    """KernelSHAP's coefficients (S,). They sum to the score of all segments minus that of none.

    The first two states are none on and all on. The coefficients are equal shares of that sum, plus
    the best part whose sum is 0. Of several equally good parts it is the smallest.
    """
    empty, whole = scores[0], scores[1]
    on = states.is_on.double()
    shares = on.mean(dim=1)
    residuals = scores - empty - shares * (whole - empty)
    root = states.weights.sqrt()
    matrix = root[:, None] * (on - shares[:, None])
    part: Tensor = torch.linalg.lstsq(matrix, (root * residuals)[:, None], driver="gelsd")[0]
    return (whole - empty) / on.shape[1] + part[:, 0]
