"""Methods that change the image or a layer, and measure the change of the score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Protocol

from camcli.core.errors import UsageError
from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    Alter = Callable[[int, Tensor], Tensor]


class RescoreFunction(Protocol):
    """Scores or probabilities of altered images: the input `rescore` of a method."""

    def __call__(self, alter: Alter, wanted: Tensor, *, probability: bool = True) -> Tensor:
        """The scores (B,N); 0 for entries that are not wanted."""


class AblateFunction(Protocol):
    """Scores or probabilities with a changed layer output: the input `ablate` of a method."""

    def __call__(self, change: Alter, wanted: Tensor, *, probability: bool = False) -> Tensor:
        """The scores (B,N); 0 for entries that are not wanted."""


def _create_mask_scorer(
    rescore: RescoreFunction, alterations: Sequence[Alter], weights: str
) -> Callable[[Tensor], Tensor]:
    """A function that scores masks: the mean score over several alterations of the image."""

    def scores(wanted: Tensor) -> Tensor:
        plain = weights != "softmax"
        each = (rescore(alter, wanted, probability=plain) for alter in alterations)
        return reduce(add, each) / len(alterations)

    return scores


WEIGHT_CHOICES = {"weights": ("probability", "softmax")}


@method(paper="https://arxiv.org/abs/1910.01279", returns="terms", choices=WEIGHT_CHOICES)
def scorecam(
    inputs: Tensor,
    activations: Tensor,
    rescore: RescoreFunction,
    *,
    channels: int = 0,
    weights: str = "probability",
) -> Tensor:
    """Score-CAM: every channel, weighted with the score of the image masked by that channel.

    w_k = p_c(x * m_k), with m_k the channel, upsampled and min-maxed; M = relu(sum_k w_k A_k).
    (B,3,H,W), (B,C,h,w) -> terms of M. It needs one forward pass per channel.

    `channels=N` uses only the N channels that vary most (0: all). `weights=softmax` uses the
    softmax of the logits over channels instead of the class's probability. Deviations: a constant
    channel gives no mask and gets weight 0. Equal masks are scored once.
    """
    from camcli.methods._masks import create_channel_masks

    masks = create_channel_masks(activations, inputs, channels)
    return masks.weight_activations(
        _create_mask_scorer(rescore, [masks.mask_image], weights), weights
    )


@method(paper="https://arxiv.org/abs/2006.14255", returns="terms", choices=WEIGHT_CHOICES)
def sscam(
    inputs: Tensor,
    activations: Tensor,
    rescore: RescoreFunction,
    *,
    samples: int = 35,
    noise: float = 2.0,
    channels: int = 0,
    weights: str = "probability",
    seed: int = 0,
) -> Tensor:
    """SS-CAM: Score-CAM with scores averaged over noisy copies of each mask.

    w_k = 1/N sum_i p_c(x * (m_k + e_i)), with Gaussian e_i of standard deviation `noise`;
    M = relu(sum_k w_k A_k). (B,3,H,W), (B,C,h,w) -> terms of M. It needs `samples` forward passes
    per channel.

    `channels` and `weights` are as in Score-CAM. Deviations: every channel gets the same N noise
    samples, so that only the masks differ.
    """
    from camcli.core.rng import create_normal_noise
    from camcli.methods._masks import create_channel_masks

    fields = noise * create_normal_noise((samples, *inputs.shape[2:]), seed).to(inputs)
    masks = create_channel_masks(activations, inputs, channels)

    def through(field: Tensor) -> Alter:
        return lambda b, which: inputs[b] * (masks.create_masks(b, which) + field)

    return masks.weight_activations(
        _create_mask_scorer(rescore, [*map(through, fields)], weights), weights
    )


@method(paper="https://arxiv.org/abs/2010.03023", returns="terms", choices=WEIGHT_CHOICES)
def iscam(
    inputs: Tensor,
    activations: Tensor,
    rescore: RescoreFunction,
    *,
    steps: int = 10,
    channels: int = 0,
    weights: str = "probability",
) -> Tensor:
    """IS-CAM: Score-CAM with scores averaged over masks of growing strength.

    w_k = 1/N sum_i p_c(x * m_k c_i), c_i = sum_{j <= i} j/N; M = relu(sum_k w_k A_k).
    (B,3,H,W), (B,C,h,w) -> terms of M. It needs `steps` forward passes per channel.

    `channels` and `weights` are as in Score-CAM. Deviations: none.
    """
    from camcli.methods._masks import create_channel_masks

    masks = create_channel_masks(activations, inputs, channels)

    def faded(step: int) -> Alter:
        share = step * (step + 1) / (2 * steps)
        return lambda b, which: share * masks.mask_image(b, which)

    return masks.weight_activations(
        _create_mask_scorer(rescore, [*map(faded, range(1, steps + 1))], weights), weights
    )


@method(
    paper="https://openaccess.thecvf.com/content_WACV_2020/html/Desai_Ablation-CAM_Visual_Explanations_for_Deep_Convolutional_Network_via_Gradient-free_Localization_WACV_2020_paper.html",
    returns="terms",
    threshold=0.3,
)
def ablationcam(activations: Tensor, ablate: AblateFunction, *, channels: int = 0) -> Tensor:
    """Ablation-CAM: every channel, weighted with the drop of the score without that channel.

    w_k = (s - s_k) / |s|, with s_k the logit when channel k is zero; M = relu(sum_k w_k A_k).
    (B,C,H,W) -> terms of M. The part of the network after the layer runs once per channel.

    `channels=N` uses only the N channels that vary most (0: all). Deviations: the divisor is |s|,
    because the paper's s would invert the map when it is negative. Prefix tokens do not change.
    """
    from camcli.methods._masks import choose_strongest_channels

    def without(b: int, k: Tensor) -> Tensor:
        changed = activations[b].repeat(len(k), 1, 1, 1)
        changed[range(len(k)), k] = 0
        return changed

    wanted = choose_strongest_channels(activations, channels) & activations.flatten(2).any(dim=2)
    whole = ablate(lambda b, _k: activations[b : b + 1], wanted.new_ones(len(wanted), 1))
    weights = (whole - ablate(without, wanted)) / whole.abs()
    return weights.where(wanted, 0)[:, :, None, None] * activations


@method(paper="https://arxiv.org/abs/1311.2901")
def occlusion(
    inputs: Tensor, rescore: RescoreFunction, *, window: int = 32, stride: int = 16
) -> Tensor:
    """Occlusion: the drop of the score when a square covers a part of the image.

    M = relu(mean of p_c(x) - p_c(x covered) over the squares that cover a pixel).
    (B,3,H,W) -> (B,H,W). Squares of `window` pixels lie `stride` pixels apart. Each needs one
    forward pass.

    Deviations: squares have the mean colour (0), like the paper's grey. The last square of a row or
    column ends at the border.
    """
    from camcli.methods._masks import create_square_masks

    if stride > window:
        raise UsageError(
            f"occlusion: squares of {window} every {stride} pixels leave gaps; set stride <= window"
        )
    shown = create_square_masks((inputs.shape[2], inputs.shape[3]), window, stride).to(
        inputs.device
    )
    one = shown.new_ones(len(inputs), 1)
    whole = rescore(lambda b, _k: inputs[b : b + 1], one)
    lost = whole - rescore(lambda b, k: inputs[b] * shown[k, None], one.expand(-1, len(shown)))
    covered = (~shown).to(inputs)
    return (
        (lost @ covered.flatten(1) / covered.sum(dim=0).flatten()).reshape_as(inputs[:, 0]).relu()
    )


@method(paper="https://arxiv.org/abs/1806.07421", option_limits={"keep": 1, "cells": 64})
def rise(
    inputs: Tensor,
    rescore: RescoreFunction,
    *,
    masks: int = 2000,
    cells: int = 7,
    keep: float = 0.5,
    seed: int = 0,
) -> Tensor:
    """RISE: random masks, each weighted with the score of the masked image.

    M = 1/(N p) sum_i p_c(x * m_i) m_i. Each m_i is a grid of `cells` x `cells`, whose cells are
    open with probability p = `keep`, upsampled and shifted at random. (B,3,H,W) -> (B,H,W).

    It needs `masks` forward passes. Deviations: 2000 masks; the paper uses 4000 for VGG16 and 8000
    for ResNet-50. Every image gets the same masks.
    """
    from camcli.methods._masks import create_random_masks

    shown = create_random_masks((inputs.shape[2], inputs.shape[3]), masks, cells, keep, seed)
    every = inputs.new_ones(len(inputs), masks) > 0
    weights = rescore(lambda b, k: inputs[b] * shown(k).to(inputs)[:, None], every)
    return shown.sum_weighted(weights) / (
        masks * keep or 1
    )  # if no cell is open, all masks are zero
