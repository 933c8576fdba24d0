"""Methods that weigh a layer's activations by the gradient of the class score."""

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
    """Grad-CAM: channels weighted by their mean gradient.

    w_k = 1/(H W) sum_ij g_kij; M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> terms of M.

    Deviations: none. On tokens the mean is over the patch tokens of each channel; prefix tokens
    take no part.
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
    """LayerCAM: every position of every channel weighted by its own positive gradient.

    M = relu(sum_k relu(g_k) A_k). (B,C,H,W) x2 -> terms of M.

    Over several layers: tanh(2 M / max M) on those of stride below 16, min-max each, upsample,
    element-wise maximum (`--fusion` chooses another). Deviations: boxes are cut at 0.3 of the
    maximum, not at the paper's 0.15, which fits GrabCut on VGG16 (`--boxes grabcut`): on 650 ILSVRC
    photographs GT-known of the last layer is 0.68 at 0.3 and 0.61 at 0.15.
    """
    return gradients.relu() * activations


@method(paper="https://arxiv.org/abs/1710.11063", returns="terms", name="gradcam++", threshold=0.3)
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++: each position of a channel counts as much as the score grows with it.

    alpha_kij = g^2 / (2 g^2 + S_k g^3) = 1 / (2 + S_k g_kij) with S_k = sum_ij A_kij, and 0 where
    g_kij = 0; w_k = sum_ij alpha_kij relu(g_kij); M = relu(sum_k w_k A_k).
    (B,C,H,W) x2 -> terms of M.

    Deviations: the paper has S_k >= 0, as after a ReLU; a negative S_k is taken as 0, for else the
    fraction has a pole at S_k g = -2. It is cancelled first, so that small gradients are not lost
    in an epsilon.
    """
    positive = gradients.relu()
    total = activations.sum(dim=(2, 3), keepdim=True).relu()
    weights = (positive / (2 + total * positive)).sum(dim=(2, 3), keepdim=True)
    return weights * activations


@method(paper="https://arxiv.org/abs/2008.02312", returns="terms")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM: the mean gradient of a channel, weighted by the activation where it was taken.

    w_k = sum_ij g_kij A_kij / sum_ij A_kij; M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> terms of M.

    Deviations: a channel whose sum nearly cancels, |sum A| <= 0.01 sum |A|, gets no weight: the
    quotient would be noise. After a ReLU those are the channels that are zero everywhere.
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    sound = total.abs() > 0.01 * activations.abs().sum(dim=(2, 3), keepdim=True)
    product = (gradients * activations).sum(dim=(2, 3), keepdim=True)
    weights = (product / total.where(sound, 1)).where(sound, 0)
    return weights * activations


@method(paper="https://arxiv.org/abs/2011.08891", returns="terms")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: every position of every channel weighted by its own gradient.

    M = relu(sum_k g_k A_k). (B,C,H,W) x2 -> terms of M.

    Deviations: a sum that cancels to rounding, |sum| <= 1e-5 sum |g_k A_k|, is 0. So it is at every
    position of a transformer's residual stream that only a LayerNorm reads: the score does not
    change with a token's length, so its gradient is orthogonal to the token.
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
    """Element-wise Grad-CAM: only what speaks for the class, position by position and channel.

    M = sum_k relu(g_k A_k). (B,C,H,W) x2 -> terms of M. Deviations: none; it has no paper.
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
    w_k = sum_ij alpha relu(D1); M = relu(sum_k w_k A_k). The noise is Gaussian, its deviation the
    share `noise` of the image's range. (B,3,H,W), (B,C,h,w) -> terms of M.

    Deviations: A and S_k are those of the clean image; a negative S_k or D3 is taken as 0, for else
    the fraction has a pole.
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
    """Shapley-CAM: the mean gradient, less half of what curvature takes back.

    w_k = mean_ij (g - H A / 2)_k, with H the Hessian of the score by A; M = relu(sum_k w_k A_k).
    (B,C,h,w) x3 -> terms of M. Equals Grad-CAM where the score is piecewise linear in A.

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
    """FullGrad: what the input and every bias contribute to the score, all at the input's size.

    M = sum_c psi(x g_x) + sum_l sum_c psi(b_l g_l), with psi(t) = |t|, min-maxed and upsampled.
    (B,3,H,W) x2, of each layer (B,C,h,w) -> (B,H,W).

    Biases are those of convolutions and, -mean gamma / sigma + beta, of batch norms. Deviations:
    min-max is over a layer, as in the authors' code (`--set each=channel` is the paper's (8)), and
    biases of linear layers, which have no place in the image, are left out.
    """
    from camcli.core.maps import normalize_tensor, resize_maps

    size = (inputs.shape[2], inputs.shape[3])
    whole = inputs.new_zeros(len(inputs), *size)
    for term in ((inputs * input_gradients), *bias_terms):
        shown = normalize_tensor(term.abs(), (2, 3) if each == "channel" else (1, 2, 3))
        # Bilinear is linear: the channels' sum is upsampled, and not each of them.
        whole = whole + resize_maps(shown.sum(dim=1), size)
    return whole
