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
