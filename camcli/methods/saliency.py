"""Methods that use the gradient of the score with respect to the pixels of the input."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    Slope = Callable[[Tensor], Tensor]

# SmoothGrad's authors clip maps here, because a few pixels are far above all others.
CLIP_QUANTILE = 0.99

BASELINES = {"baseline": ("mean", "black", "white", "blur")}


@method(
    paper="https://arxiv.org/abs/1312.6034",
    clip_quantile=CLIP_QUANTILE,
    threshold=0.15,
    refined_threshold=0.27,
)
def saliency(input_gradients: Tensor) -> Tensor:
    """Saliency: the absolute gradient of the score at each pixel.

    M = max over colours of |dy_c/dx|. (B,3,H,W) -> (B,H,W). Deviations: none.
    """
    return input_gradients.abs().amax(dim=1)


@method(
    paper="https://arxiv.org/abs/1605.01713", clip_quantile=CLIP_QUANTILE, refined_threshold=0.15
)
def inputxgradient(inputs: Tensor, input_gradients: Tensor) -> Tensor:
    """Input times gradient: the contribution of each pixel to a linear approximation of the score.

    M = |sum over colours of x dy_c/dx|. (B,3,H,W) x2 -> (B,H,W).

    Deviations: the absolute value, because a map has one colour scale. x is the normalised input,
    in which 0 is the mean colour.
    """
    return (inputs * input_gradients).sum(dim=1).abs()


@method(
    paper="https://arxiv.org/abs/1703.01365",
    clip_quantile=CLIP_QUANTILE,
    choices=BASELINES,
)
def integratedgradients(
    inputs: Tensor,
    color_range: Tensor,
    slope: Slope,
    *,
    steps: int = 50,
    baseline: str = "mean",
    absolute: bool = True,
) -> Tensor:
    """Integrated gradients: the contribution of each pixel, integrated from a plain grey image on.

    M = |sum over colours of (x - b) integral_0^1 dy_c/dx (b + a (x - b)) da|, by Gauss-Legendre
    quadrature with `steps` nodes. The baseline b is the mean colour (0). (B,3,H,W) -> (B,H,W).

    `baseline` is "mean", "black", "white", or "blur", the image blurred by a tenth of its shorter
    side. Pixels of the baseline's colour contribute nothing. `absolute=false` keeps the sign, for
    `--save array`. The map's sum is then the logit of the image minus that of the baseline.
    Deviations: the absolute value.
    """
    from camcli.methods._baselines import create_baseline, integrate_slope

    start = create_baseline(baseline, inputs, color_range)
    signed = integrate_slope(slope, start, inputs, steps).sum(dim=1)
    return signed.abs() if absolute else signed


@method(paper="https://arxiv.org/abs/1706.03825", clip_quantile=CLIP_QUANTILE)
def smoothgrad(
    inputs: Tensor, slope: Slope, *, samples: int = 25, noise: float = 0.15, seed: int = 0
) -> Tensor:
    """SmoothGrad: saliency with gradients averaged over noisy copies of the image.

    M = max over colours of |1/N sum_i dy_c/dx (x + e_i)|, with Gaussian e_i whose standard
    deviation is `noise` times the image's range. (B,3,H,W) -> (B,H,W). Deviations: none.
    """
    from camcli.core.rng import iter_noisy_copies

    total = reduce(add, (slope(copy) for copy in iter_noisy_copies(inputs, samples, noise, seed)))
    return (total / samples).abs().amax(dim=1)


@method(paper="https://arxiv.org/abs/1412.6806", works_on=("CNN",), clip_quantile=CLIP_QUANTILE)
def guidedbackprop(guided_gradients: Tensor) -> Tensor:
    """Guided backpropagation: the gradient at the pixels, with only positive values kept at ReLUs.

    At each ReLU R = 1[x > 0] relu(R'); M = max over colours of |R| at the input. (B,3,H,W) ->
    (B,H,W).

    It works only on networks whose activations are ReLU or ReLU6. Deviations: none. The map hardly
    depends on the class (arXiv 1810.03292); compare it with the map of another class.
    """
    return guided_gradients.abs().amax(dim=1)


@method(
    paper="https://arxiv.org/abs/1610.02391",
    name="guided-gradcam",
    works_on=("CNN",),
    clip_quantile=CLIP_QUANTILE,
    threshold=0.07,
)
def guided_gradcam(activations: Tensor, gradients: Tensor, guided_gradients: Tensor) -> Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM.

    M = max over colours of |R| times Grad-CAM, upsampled. (B,C,h,w) x2, (B,3,H,W) -> (B,H,W).
    Deviations: none.
    """
    from camcli.core.maps import resize_maps, sum_channels
    from camcli.methods.gradient import gradcam

    where = sum_channels(gradcam(activations, gradients))
    fine = guidedbackprop(guided_gradients)
    return fine * resize_maps(where, (fine.shape[1], fine.shape[2]))
