"""Methods that follow the score along a path from a plain image to the image."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from camcli.core.errors import UsageError
from camcli.methods.registry import method
from camcli.methods.saliency import BASELINES, CLIP_QUANTILE

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.methods.gradient import Differentiate
    from camcli.methods.saliency import Slope

MIN_FRACTION = 0.01  # with less, a step of guided integrated gradients takes too many parts


@method(paper="https://arxiv.org/abs/2102.07805", family="gradient", choices=BASELINES)
def integratedgradcam(
    inputs: Tensor,
    color_range: Tensor,
    differentiate: Differentiate,
    *,
    steps: int = 20,
    baseline: str = "mean",
) -> Tensor:
    """Integrated Grad-CAM: Grad-CAM, integrated from a plain grey image on.

    M = integral_0^1 relu(sum_k w_k(x_a) A_k(x_a)) da, with w_k = mean_ij of the gradient of the
    score, and x_a = b + a (x - b), by Gauss-Legendre quadrature with `steps` nodes.
    (B,3,H,W) -> (B,h,w). It needs `steps` gradients. `baseline` chooses b as in integrated
    gradients.

    Deviations: the formula is that of the authors' code, which takes the left ends of 50 steps
    instead. The authors start from black (`--set baseline=black`).
    """
    from camcli.core.maps import sum_channels
    from camcli.methods._baselines import create_baseline, iter_nodes
    from camcli.methods.gradient import gradcam

    start = create_baseline(baseline, inputs, color_range)
    way = inputs - start
    path = ((weight, differentiate(start + node * way)) for node, weight in iter_nodes(steps))
    return reduce(add, (weight * sum_channels(gradcam(*pair)) for weight, pair in path))


@method(paper="https://arxiv.org/abs/1705.07874", family="saliency", clip_quantile=CLIP_QUANTILE)
def gradientshap(
    inputs: Tensor,
    color_range: Tensor,
    slope: Slope,
    *,
    samples: int = 50,
    noise: float = 0.0,
    absolute: bool = True,
    seed: int = 0,
) -> Tensor:
    """GradientSHAP: the contribution of each pixel, from plain images of random colours on.

    M = |sum over colours of 1/N sum_i (x_i - b_i) dy_c/dx (b_i + a_i (x_i - b_i))|, with a_i drawn
    from U(0, 1), the colour of the plain image b_i between black and white, and Gaussian noise on
    x_i whose standard deviation is `noise` times the image's range. (B,3,H,W) -> (B,H,W). It needs
    `samples` gradients. Without noise these are expected gradients (arXiv 1906.10670).

    `absolute=false` keeps the sign, for `--save array`. The map's sum is then about the logit of
    the image minus the mean logit of the plain images.
    Deviations: the absolute value. The authors draw b_i from a set of images. camcli has no such
    set; random colours spare every colour alike. Every image gets the same numbers.
    """
    from camcli.core.rng import create_uniform_noise, iter_noisy_copies

    drawn = create_uniform_noise((samples, inputs.shape[1] + 1), seed).to(inputs)
    black, white = color_range
    total = inputs.new_zeros(inputs.shape)
    for copy, numbers in zip(iter_noisy_copies(inputs, samples, noise, seed), drawn, strict=True):
        plain = black + numbers[:-1, None, None] * (white - black)
        total += (copy - plain) * slope(plain + numbers[-1] * (copy - plain))
    return _sum_colors(total / samples, absolute)


@method(
    paper="https://arxiv.org/abs/2106.09788",
    family="saliency",
    clip_quantile=CLIP_QUANTILE,
    choices=BASELINES,
    option_limits={"fraction": 1, "distance": 1},
)
def guidedig(
    inputs: Tensor,
    color_range: Tensor,
    slope: Slope,
    *,
    steps: int = 200,
    fraction: float = 0.25,
    distance: float = 0.02,
    baseline: str = "mean",
    absolute: bool = True,
) -> Tensor:
    """Guided integrated gradients: integrated gradients along a path of small gradients.

    M = |sum over colours of sum_t (x_t - x_{t-1}) dy_c/dx (x_{t-1})|, from the mean colour (0) to
    the image. All steps are equally long, but the `fraction` of the values with the smallest
    |dy_c/dx| moves first. No value may be more than `distance` of its way ahead or behind.
    (B,3,H,W) -> (B,H,W). It needs `steps` gradients.

    `absolute=false` keeps the sign, for `--save array`. `distance=0` is the straight path of
    integrated gradients; with `distance=1` a value may move at any time. `baseline` is as in
    integrated gradients. Raises UsageError for a `fraction` below 0.01.
    Where gradients are nearly equal, rounding chooses the path: a map may then differ somewhat with
    the batch size or the device.
    Deviations: the absolute value. The path is that of the authors' code.
    """
    from camcli.methods._baselines import create_baseline
    from camcli.methods._guided_path import PathLimits, advance_path

    if fraction < MIN_FRACTION:
        raise UsageError(f"guidedig: --set fraction={fraction:g}: write {MIN_FRACTION:g} or more")
    start = create_baseline(baseline, inputs, color_range)
    way = inputs - start
    # The share of its way that each value has gone.
    reached, total = inputs.new_zeros(inputs.shape), inputs.new_zeros(inputs.shape)
    for step in range(1, steps + 1):
        gradients = slope(start + reached * way)
        limits = PathLimits(step / steps, distance, fraction)
        ahead = advance_path(reached, way.abs(), gradients.abs(), limits)
        total += (ahead - reached) * way * gradients
        reached = ahead
    return _sum_colors(total, absolute)


@method(paper="https://arxiv.org/abs/2004.03383", family="saliency", clip_quantile=CLIP_QUANTILE)
def blurig(
    inputs: Tensor, slope: Slope, *, steps: int = 50, sigma: float = 50.0, absolute: bool = True
) -> Tensor:
    """Blur integrated gradients: the contribution of each pixel while the image becomes sharp.

    M = |sum over colours of sum_t (x_t - x_{t+1}) dy_c/dx (x_t)|, with x_t blurred by a Gaussian of
    standard deviation t/`steps` times `sigma` pixels. (B,3,H,W) -> (B,H,W). It needs `steps`
    gradients.

    `absolute=false` keeps the sign, for `--save array`. The map's sum is then about the logit of
    the image minus the logit of the blurred image.
    Deviations: the absolute value. The authors' code estimates x_t - x_{t+1} from a blur that is
    0.01 pixels wider; camcli takes the difference itself. Beyond the border is the mean colour (0).
    """
    from camcli.methods._baselines import blur_inputs

    total, blurred = inputs.new_zeros(inputs.shape), inputs
    for step in range(1, steps + 1):
        further = blur_inputs(inputs, sigma * step / steps)
        total += (blurred - further) * slope(blurred)
        blurred = further
    return _sum_colors(total, absolute)


def _sum_colors(contributions: Tensor, absolute: bool) -> Tensor:
    signed = contributions.sum(dim=1)
    return signed.abs() if absolute else signed
