"""Methods that explain the score by segments of the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from camcli.core.errors import UsageError
from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.methods.perturbation import RescoreFunction

    Slope = Callable[[Tensor], Tensor]

CHOICES = {
    "cut": ("slic", "grid"),
    "fill": ("mean", "segment"),
    "score": ("probability", "logit"),
}
LIMITS = {"segments": 500}
XRAI_MIN_AREA = 50  # in pixels; the authors' code leaves out regions that add less


def find_missing_package(options: Mapping[str, Any]) -> str | None:
    """Say how to install scikit-image, unless it is there or the options need no superpixels."""
    if options.get("cut") == "grid" or find_spec("skimage") is not None:
        return None
    remedy = "pip install 'camcli[segments]'"
    return f"it needs scikit-image: {remedy}{', or set cut=grid' if 'cut' in options else ''}"


def _check_package(name: str, options: Mapping[str, Any]) -> None:
    problem = find_missing_package(options)
    if problem:
        raise UsageError(f"{name}: {problem}")


@method(
    paper="https://arxiv.org/abs/1602.04938",
    choices=CHOICES,
    option_limits=LIMITS,
    find_problem=find_missing_package,
)
def lime(
    inputs: Tensor,
    rescore: RescoreFunction,
    *,
    segments: int = 50,
    samples: int = 1000,
    width: float = 0.25,
    ridge: float = 1.0,
    cut: str = "slic",
    fill: str = "mean",
    score: str = "probability",
    positive: bool = True,
    seed: int = 0,
) -> Tensor:
    """LIME: a linear model of the score, fitted to images in which some segments are covered.

    min_w sum_z pi(z) (p_c(z) - w_0 - w z)^2 + ridge |w|^2, with z_s = 1 where segment s is shown,
    pi(z) = exp(-d^2 / (2 width^2)) and d = 1 - cos(z, 1); M = relu(w_s) at the pixels of s.
    (B,3,H,W) -> (B,H,W). It needs `samples` forward passes.

    `segments` is about the number of superpixels (SLIC); `cut=grid` takes squares instead. A
    covered segment has the mean colour; `fill=segment` gives it its own mean. `score=logit`
    explains the logit. `positive=false` keeps the negative coefficients, for `--save array`.

    Deviations: as in the authors' code, ridge regression on all segments and the cosine distance
    with this width; the paper selects segments by Lasso, and names the L2 distance. SLIC takes
    the place of quickshift. Every image gets the same random numbers.
    """
    from camcli.methods._surrogates import draw_states, explain_segments, fit_ridge

    _check_package("lime", {"cut": cut})
    signed = explain_segments(
        inputs,
        rescore,
        lambda count: draw_states(count, samples, width, seed),
        lambda states, scores: fit_ridge(states, scores, ridge),
        segments=segments,
        cut=cut,
        fill=fill,
        score=score,
    )
    return signed.relu() if positive else signed


@method(
    paper="https://arxiv.org/abs/1705.07874",
    choices=CHOICES,
    option_limits=LIMITS,
    find_problem=find_missing_package,
)
def kernelshap(
    inputs: Tensor,
    rescore: RescoreFunction,
    *,
    segments: int = 25,
    samples: int = 1000,
    cut: str = "slic",
    fill: str = "mean",
    score: str = "probability",
    positive: bool = True,
    seed: int = 0,
) -> Tensor:
    """KernelSHAP: the Shapley value of each segment, by weighted linear regression.

    min_w sum_z k(z) (p_c(z) - p_c(0) - w z)^2 where sum_s w_s = p_c(1) - p_c(0), with z_s = 1
    where segment s is shown and k(z) = (S - 1) / (C(S,|z|) |z| (S - |z|)); M = relu(w_s) at the
    pixels of s. (B,3,H,W) -> (B,H,W). It needs about `samples` forward passes.

    With at least 2^S - 2 samples the values are exact. More `segments` need many more samples.
    `segments`, `cut`, `fill`, `score` and `positive` are as in LIME.

    Deviations: no selection of segments by Lasso. Of the sizes |z|, those that the samples
    suffice for are taken completely, as in the authors' code; other states are drawn, each with
    its complement (arXiv 2012.01536). Every image gets the same random numbers.
    """
    from camcli.methods._surrogates import create_coalitions, explain_segments, fit_shapley

    _check_package("kernelshap", {"cut": cut})
    signed = explain_segments(
        inputs,
        rescore,
        lambda count: create_coalitions(count, samples, seed),
        fit_shapley,
        segments=segments,
        cut=cut,
        fill=fill,
        score=score,
    )
    return signed.relu() if positive else signed


@method(
    paper="https://arxiv.org/abs/1906.02825",
    signed=True,
    threshold=0.5,
    find_problem=find_missing_package,
)
def xrai(inputs: Tensor, slope: Slope, color_range: Tensor, *, steps: int = 50) -> Tensor:
    """XRAI: integrated gradients averaged over regions, the region with the largest mean first.

    A = max over colours of the mean of (x - b) integral_0^1 dy_c/dx (b + a (x - b)) da over b black
    and b white. The regions are Felzenszwalb's segments at six scales, dilated by 5 pixels. Each
    step takes the region r with the largest mean of A over its pixels that no earlier region has;
    M is that mean at these pixels. (B,3,H,W) -> (B,H,W). It needs 2 `steps` backward passes.

    Deviations: Gauss-Legendre quadrature with `steps` nodes. Scales, sizes and the maximum over
    colours are those of the authors' code, which takes the lowest and the highest value of the
    image for black and white.
    """
    import torch

    from camcli.methods._baselines import integrate_slope
    from camcli.methods._superpixels import cut_into_overlapping_segments, rank_regions

    _check_package("xrai", {})
    each = [integrate_slope(slope, plain, inputs, steps) for plain in color_range]
    attributions = torch.stack(each).mean(dim=0).amax(dim=1).double().cpu().numpy()
    maps = [
        rank_regions(values, cut_into_overlapping_segments(image), XRAI_MIN_AREA)
        for values, image in zip(attributions, inputs, strict=True)
    ]
    return torch.stack([torch.from_numpy(m) for m in maps]).to(inputs)
