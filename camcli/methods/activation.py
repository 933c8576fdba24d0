"""Methods that read a layer's activations; most give the same map for every class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


@method(paper="https://arxiv.org/abs/2008.00299", threshold=0.02, refined_threshold=0.2)
def eigencam(activations: Tensor) -> Tensor:
    """Eigen-CAM: the first principal component of a layer's channels.

    M = relu(P), P_ij = v . (A_ij - mean_ij A), with v the first right singular vector of the
    centred pixels (HW,C). (B,C,H,W) -> (B,H,W). The map is the same for every class.

    Deviations: camcli centres the pixels, which the paper does not mention. The sign of a component
    is arbitrary; camcli takes the sign that correlates with the sum over channels.
    """
    from camcli.methods._decomposition import compute_principal_map

    return compute_principal_map(activations).relu()


@method(
    paper="https://github.com/jacobgil/pytorch-grad-cam", threshold=0.02, refined_threshold=0.28
)
def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """EigenGrad-CAM: the first principal component of gradient times activation.

    M = relu(P), P_ij = v . (T_ij - mean_ij T), T = g A. (B,C,H,W) x2 -> (B,H,W).

    Deviations: the sign is the one that correlates with the sum over channels. No paper describes
    the method.
    """
    from camcli.methods._decomposition import compute_principal_map

    return compute_principal_map(gradients * activations).relu()


@method(
    paper="https://arxiv.org/abs/2410.00267",
    threshold=0.02,
    max_positions=4096,
    refined_threshold=0.27,
)
def kpcacam(activations: Tensor) -> Tensor:
    """KPCA-CAM: the first kernel principal component of a layer's pixels.

    M = relu(u sqrt(lambda)), with the first eigenvector u and eigenvalue lambda of the centred
    kernel K_ij = tanh(a_i . a_j / C + 1) of the centred pixels a (HW,C). (B,C,H,W) -> (B,H,W).
    The map is the same for every class.

    A layer may have at most 4096 positions, because the kernel grows with their square.
    Deviations: the sign is the one that correlates with the sum over channels.
    """
    from camcli.methods._decomposition import compute_kernel_principal_map

    return compute_kernel_principal_map(activations).relu()


@method(paper="https://hal.science/hal-02963298", returns="terms", threshold=0.3)
def fem(activations: Tensor, *, k: float = 2.0) -> Tensor:
    """FEM: every channel, weighted with its share of unusually strong pixels.

    w_k = share of pixels above the channel's mean plus `k` standard deviations;
    M = relu(sum_k w_k A_k). (B,C,H,W) -> terms of M. The map is the same for every class.
    Deviations: none.
    """
    spread = activations.std(dim=(2, 3), keepdim=True, correction=0)
    rare = activations > activations.mean(dim=(2, 3), keepdim=True) + k * spread
    return rare.float().mean(dim=(2, 3), keepdim=True) * activations


@method(paper="https://arxiv.org/abs/1810.03292", returns="terms")
def randomcam(activations: Tensor, *, seed: int = 0) -> Tensor:
    """Random-CAM: every channel with a random weight; a baseline that other methods must beat.

    w_k ~ U(-1, 1), the same for every image and class; M = relu(sum_k w_k A_k).
    (B,C,H,W) -> terms of M. Deviations: none; the paper asks for checks of this kind.
    """
    from camcli.core.rng import create_uniform_noise

    weights = create_uniform_noise((activations.shape[1],), seed).to(activations) * 2 - 1
    return weights[:, None, None] * activations
