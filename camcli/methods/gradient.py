"""Methods that weight a layer's activations with the gradient of the class score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    Differentiate = Callable[[Tensor], tuple[Tensor, Tensor]]


@method(paper="https://arxiv.org/abs/1610.02391", returns="terms")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: every channel, weighted with its mean gradient.

    w_k = 1/(H W) sum_ij g_kij; M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> terms of M.

    Deviations: none. With tokens, the mean is over the patch tokens of each channel, without prefix
    tokens.

    The gradient g_kij is that of the class's logit, before softmax or sigmoid. Some texts describe
    Grad-CAM on transformers with another formula: w_ij = 1/C sum_k g_kij, a mean over the channels
    of each token, and M_ij = sum_k w_ij A_kij. That is not Grad-CAM. It gives other maps, and after
    a block it gives almost 0: a LayerNorm follows, which removes the mean over the channels.
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return weights * activations


@method(
    paper="https://doi.org/10.1109/TIP.2021.3089943",
    returns="terms",
    threshold=0.3,
    fusion="layercam",
)
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: every position of every channel, weighted with its own positive gradient.

    M = relu(sum_k relu(g_k) A_k). (B,C,H,W) x2 -> terms of M.

    Several layers: tanh(2 M / max M) for strides below 16, min-max each map, upsample, element-wise
    maximum (`--fusion` chooses another). Deviations: the box threshold is 0.3 of the maximum. The
    paper's 0.15 suits GrabCut on VGG16 (`--boxes grabcut`). On 650 ILSVRC photographs GT-known of
    the last layer is 0.68 at 0.3 and 0.61 at 0.15.
    """
    return gradients.relu() * activations


@method(paper="https://arxiv.org/abs/1710.11063", returns="terms", name="gradcam++", threshold=0.3)
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++: every channel, weighted with a weighted sum of its positive gradients.

    alpha_kij = g^2 / (2 g^2 + S_k g^3) = 1 / (2 + S_k g_kij) with S_k = sum_ij A_kij, and 0 where
    g_kij = 0; w_k = sum_ij alpha_kij relu(g_kij); M = relu(sum_k w_k A_k).
    (B,C,H,W) x2 -> terms of M.

    Deviations: the paper assumes S_k >= 0, as after a ReLU. camcli replaces a negative S_k by 0,
    because the fraction has a pole at S_k g = -2. camcli reduces the fraction first, so it needs no
    epsilon, in which small gradients would be lost.
    """
    positive = gradients.relu()
    total = activations.sum(dim=(2, 3), keepdim=True).relu()
    weights = (positive / (2 + total * positive)).sum(dim=(2, 3), keepdim=True)
    return weights * activations


@method(paper="https://arxiv.org/abs/2008.02312", returns="terms")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM: every channel, weighted with its activation-weighted mean gradient.

    w_k = sum_ij g_kij A_kij / sum_ij A_kij; M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> terms of M.

    Deviations: a channel whose sum nearly cancels, |sum A| <= 0.01 sum |A|, gets weight 0, because
    the quotient would be noise. After a ReLU, only channels that are zero everywhere are affected.
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    sound = total.abs() > 0.01 * activations.abs().sum(dim=(2, 3), keepdim=True)
    product = (gradients * activations).sum(dim=(2, 3), keepdim=True)
    weights = (product / total.where(sound, 1)).where(sound, 0)
    return weights * activations


@method(paper="https://arxiv.org/abs/2011.08891", returns="terms")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: every position of every channel, weighted with its own gradient.

    M = relu(sum_k g_k A_k). (B,C,H,W) x2 -> terms of M.

    Deviations: a sum that is only rounding error, |sum| <= 1e-5 sum |g_k A_k|, becomes 0. This
    happens at every position of a transformer's residual stream that only a LayerNorm reads: the
    score does not depend on a token's length, so its gradient is orthogonal to the token.
    """
    product = gradients * activations
    sound = product.sum(dim=1).abs() > 1e-5 * product.abs().sum(dim=1)
    return product.where(sound[:, None], 0)


@method(
    paper="https://github.com/jacobgil/pytorch-grad-cam",
    returns="terms",
    name="gradcam-elementwise",
    threshold=0.3,
)
def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Element-wise Grad-CAM: the positive products of gradient and activation.

    M = sum_k relu(g_k A_k). (B,C,H,W) x2 -> terms of M. Deviations: none; no paper describes it.
    """
    return (gradients * activations).relu()


@method(
    paper="https://arxiv.org/abs/1908.01224", returns="terms", name="smoothgradcam++", threshold=0.3
)
def smoothgradcam_plus_plus(
    inputs: Tensor,
    activations: Tensor,
    differentiate: Differentiate,
    *,
    samples: int = 10,
    noise: float = 0.2,
    seed: int = 0,
) -> Tensor:
    """Smooth Grad-CAM++: Grad-CAM++ with gradients averaged over noisy copies of the image.

    D1, D2, D3 = mean over `samples` of g, g^2, g^3; alpha = D2 / (2 D2 + S_k D3), 0 where D2 = 0;
    w_k = sum_ij alpha relu(D1); M = relu(sum_k w_k A_k). The noise is Gaussian; its standard
    deviation is `noise` times the image's range. (B,3,H,W), (B,C,h,w) -> terms of M.

    Deviations: A and S_k come from the clean image. camcli replaces a negative S_k or D3 by 0,
    because the fraction would have a pole.
    """
    from camcli.core.rng import iter_noisy_copies

    grads = [differentiate(copy)[1] for copy in iter_noisy_copies(inputs, samples, noise, seed)]
    first, second, third = (reduce(add, (g**n for g in grads)) / samples for n in (1, 2, 3))
    total = activations.sum(dim=(2, 3), keepdim=True).relu()
    below = 2 * second + total * third.relu()
    alpha = (second / below.where(below > 0, 1)).where(below > 0, 0)
    weights = (alpha * first.relu()).sum(dim=(2, 3), keepdim=True)
    return weights * activations


@method(paper="https://arxiv.org/abs/2501.06261", returns="terms")
def shapleycam(activations: Tensor, gradients: Tensor, curvature: Tensor) -> Tensor:
    """Shapley-CAM: every channel, weighted with its mean gradient minus half of its curvature term.

    w_k = mean_ij (g - H A / 2)_k, with H the Hessian of the score with respect to A;
    M = relu(sum_k w_k A_k). (B,C,h,w) x3 -> terms of M. The method equals Grad-CAM if the score is
    piecewise linear in A.

    Deviations: none. The score is the logit.
    """
    return (gradients - curvature / 2).mean(dim=(2, 3), keepdim=True) * activations


@method(
    paper="https://arxiv.org/abs/1905.00780",
    works_on=("CNN",),
    choices={"each": ("layer", "channel")},
)
def fullgrad(
    inputs: Tensor, input_gradients: Tensor, bias_terms: Sequence[Tensor], *, each: str = "layer"
) -> Tensor:
    """FullGrad: the contributions of the input and of every bias, summed at the input's size.

    M = sum_c psi(x g_x) + sum_l sum_c psi(b_l g_l), with psi(t) = |t|, min-maxed and upsampled.
    (B,3,H,W) x2, (B,C,h,w) of each layer -> (B,H,W).

    The biases are those of convolutions and of batch norms (-mean gamma / sigma + beta).
    Deviations: min-max is over a layer, as in the authors' code (`--set each=channel` is the
    paper's equation 8). The biases of linear layers have no position and are left out.
    """
    from camcli.core.maps import normalize_tensor, resize_maps

    size = (inputs.shape[2], inputs.shape[3])
    whole = inputs.new_zeros(len(inputs), *size)
    for term in ((inputs * input_gradients), *bias_terms):
        shown = normalize_tensor(term.abs(), (2, 3) if each == "channel" else (1, 2, 3))
        # Bilinear upsampling is linear: upsample the sum of the channels instead of each channel.
        whole = whole + resize_maps(shown.sum(dim=1), size)
    return whole
