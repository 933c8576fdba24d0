"""Methods that weigh a layer's activations by the gradient of the class score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods import method

if TYPE_CHECKING:
    from torch import Tensor


@method(paper="https://arxiv.org/abs/1610.02391")
def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient.

    w_k = 1/(H W) sum_ij g_kij; M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> (B,H,W).

    Deviations: none. On tokens the mean is over the patch tokens of each channel; prefix tokens
    take no part.
    """
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1).relu()


@method(paper="https://doi.org/10.1109/TIP.2021.3089943", threshold=0.3, fusion="layercam")
def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """LayerCAM: every position of every channel weighted by its own positive gradient.

    M = relu(sum_k relu(g_k) A_k). (B,C,H,W) x2 -> (B,H,W).

    Over several layers: tanh(2 M / max M) on those of stride below 16, min-max each, upsample,
    element-wise maximum (`--fusion` chooses another). Deviations: boxes are cut at 0.3 of the
    maximum, not at the paper's 0.15, which fits GrabCut on VGG16 (`--boxes grabcut`): on 650 ILSVRC
    photographs GT-known of the last layer is 0.68 at 0.3 and 0.61 at 0.15.
    """
    return (gradients.relu() * activations).sum(dim=1).relu()


@method(paper="https://arxiv.org/abs/1710.11063", name="gradcam++")
def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Grad-CAM++: each position of a channel counts as much as the score grows with it.

    alpha_kij = g^2 / (2 g^2 + S_k g^3) = 1 / (2 + S_k g_kij) with S_k = sum_ij A_kij, and 0 where
    g_kij = 0; w_k = sum_ij alpha_kij relu(g_kij); M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> (B,H,W).

    Deviations: the paper has S_k >= 0, as after a ReLU; a negative S_k is taken as 0, for else the
    fraction has a pole at S_k g = -2. It is cancelled first, so that small gradients are not lost
    in an epsilon.
    """
    positive = gradients.relu()
    total = activations.sum(dim=(2, 3), keepdim=True).relu()
    weights = (positive / (2 + total * positive)).sum(dim=(2, 3), keepdim=True)
    return (weights * activations).sum(dim=1).relu()


@method(paper="https://arxiv.org/abs/2008.02312")
def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """XGrad-CAM: the mean gradient of a channel, weighted by the activation where it was taken.

    w_k = sum_ij g_kij A_kij / sum_ij A_kij; M = relu(sum_k w_k A_k). (B,C,H,W) x2 -> (B,H,W).

    Deviations: a channel whose sum nearly cancels, |sum A| <= 0.01 sum |A|, gets no weight: the
    quotient would be noise. After a ReLU those are the channels that are zero everywhere.
    """
    total = activations.sum(dim=(2, 3), keepdim=True)
    sound = total.abs() > 0.01 * activations.abs().sum(dim=(2, 3), keepdim=True)
    product = (gradients * activations).sum(dim=(2, 3), keepdim=True)
    weights = (product / total.where(sound, 1)).where(sound, 0)
    return (weights * activations).sum(dim=1).relu()


@method(paper="https://arxiv.org/abs/2011.08891")
def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """HiResCAM: every position of every channel weighted by its own gradient.

    M = relu(sum_k g_k A_k). (B,C,H,W) x2 -> (B,H,W).

    Deviations: a sum that cancels to rounding, |sum| <= 1e-5 sum |g_k A_k|, is 0. So it is at every
    position of a transformer's residual stream that only a LayerNorm reads: the score does not
    change with a token's length, so its gradient is orthogonal to the token.
    """
    product = gradients * activations
    total = product.sum(dim=1)
    return total.where(total.abs() > 1e-5 * product.abs().sum(dim=1), 0).relu()


@method(paper="https://github.com/jacobgil/pytorch-grad-cam", name="gradcam-elementwise")
def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Element-wise Grad-CAM: only what speaks for the class, position by position and channel.

    M = sum_k relu(g_k A_k). (B,C,H,W) x2 -> (B,H,W). Deviations: none; it has no paper.
    """
    return (gradients * activations).relu().sum(dim=1)
