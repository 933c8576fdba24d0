"""Methods that propagate the score back through the layers, with a rule for each kind of layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from camcli.core.errors import UsageError
from camcli.methods.registry import method
from camcli.methods.saliency import CLIP_QUANTILE

if TYPE_CHECKING:
    from torch import Tensor

    Propagate = Callable[[str, float, float], Tensor]

RULES = (
    *("auto", "epsilon-plus", "epsilon-plus-flat", "epsilon-alpha2-beta1"),
    *("epsilon-alpha2-beta1-flat", "epsilon-gamma-box"),
    *("epsilon", "gamma", "zplus", "alpha2-beta1"),
)


@method(
    paper="https://doi.org/10.1371/journal.pone.0130140",
    works_on=("CNN", "ViT"),
    returns="terms",
    default_layer="first block or pixels",
    threshold=0.1,
    choices={"rule": RULES, "sign": ("positive", "negative", "absolute")},
    refined_threshold=0.15,
)
def lrp(
    propagate: Propagate,
    *,
    rule: str = "auto",
    gamma: float = 0.25,
    epsilon: float = 1e-6,
    sign: str = "positive",
) -> Tensor:
    """LRP: the logit, propagated back; each layer distributes its relevance over its inputs.

    R_i = sum_j x_i w_ij / z_j R_j in linear layers; M = relu(sum_k R_k) of the pixels of a CNN, and
    of the tokens after the first block of a ViT (AttnLRP, arXiv 2402.05602). `--layers` chooses
    other places. (B,C,h,w) -> terms of M.

    On a CNN `rule` combines rules. zplus: only x w > 0 counts. alpha2-beta1: 2 times that, minus
    the share of x w < 0. gamma: w + `gamma` w+. epsilon: z_j is moved by `epsilon` away from 0.
    "epsilon-plus", which is "auto", is zplus in convolutions and epsilon in linear layers; the
    other pairs are alike. At the pixels, "-flat" gives each pixel of a window the same, and "-box"
    x w - low w+ - high w-, with low black and high white. A single rule holds in every layer.
    `sign` "negative" shows what speaks against the class.

    A batch norm merges into the convolution before it; elsewhere it passes relevance on, and so do
    activations (ReLU, SiLU, GELU). A sum gives x_i / z to each summand. A maximum gives all to the
    largest value. A gate (squeeze-excitation) counts as a constant. Biases keep their share.

    On a ViT LayerNorm and GELU pass relevance on unchanged. Softmax: R_i = x_i (R_i - s_i sum_j
    R_j). In A V and Q K^T each factor gets half.
    Deviations: on a ViT the 0 rule in all linear layers; AttnLRP tunes a gamma rule for vision
    transformers, which reduces noise.
    """
    if min(gamma, epsilon) < 0:
        raise UsageError("lrp: gamma and epsilon must be 0 or more")
    terms = propagate(rule, gamma, epsilon)
    if sign == "absolute":
        return terms * terms.sum(dim=1, keepdim=True).sign()
    return -terms if sign == "negative" else terms


@method(
    paper="https://arxiv.org/abs/1704.02685",
    works_on=("CNN",),
    family="saliency",
    clip_quantile=CLIP_QUANTILE,
    refined_threshold=0.2,
    threshold=0.1,
)
def deeplift(inputs: Tensor, multipliers: Tensor, *, absolute: bool = True) -> Tensor:
    """DeepLIFT: the contribution of each pixel, by differences from a plain grey image.

    M = |sum over colours of (x - x0) m|, from the mean colour (x0 = 0). m is the gradient of the
    score, in which an activation has the slope (f(a) - f(a0)) / (a - a0) (rescale rule).
    (B,3,H,W) x2 -> (B,H,W).

    `absolute=false` keeps the sign, for `--save array`. The map's sum is then the logit of the
    image minus the logit of the plain image, as with integrated gradients, in a single pass.
    A rise of a maximum belongs to its new place, and a fall to its old one. In a product (gates)
    each factor has the mean of the other and of its baseline.
    Deviations: the absolute value. Maxima are shared as captum does, products as SHAP does.
    """
    signed = (inputs * multipliers).sum(dim=1)
    return signed.abs() if absolute else signed
