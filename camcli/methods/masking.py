"""Perturbation methods that choose, group or learn the masks, beside Score-CAM and RISE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from camcli.core.errors import UsageError
from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.methods.perturbation import AblateFunction, Alter, RescoreFunction

    Slope = Callable[[Tensor], Tensor]
    RepredictFunction = Callable[[Alter, Tensor], tuple[Tensor, Tensor]]


@method(paper="https://arxiv.org/abs/2209.14074", family="perturbation")
def reciprocam(activations: Tensor, ablate: AblateFunction, *, gaussian: bool = False) -> Tensor:
    """Recipro-CAM: the score of the class when the network sees one position of a layer only.

    M_ij = p_c(A * m_ij), with m_ij = 1 at position ij and 0 elsewhere. (B,C,h,w) -> (B,h,w). The
    part of the network after the layer runs once per position.

    `gaussian=true` gives m_ij the weights 1/4 at ij, and 1/8 and 1/16 around it. Prefix tokens,
    such as CLS, do not change. ViT-ReciproCAM (arXiv 2310.02588) is the method on a ViT with
    `gaussian=true`. Deviations: none. Its authors mask the input of the last block's attention,
    as here, or of the block before (`--block -2`).
    """
    from camcli.methods._masks import create_position_masks

    size = (activations.shape[2], activations.shape[3])
    every = activations.new_ones(len(activations), size[0] * size[1]) > 0
    return ablate(
        lambda b, k: activations[b] * create_position_masks(size, k, gaussian=gaussian),
        every,
        probability=True,
    ).reshape(-1, *size)


@method(paper="https://arxiv.org/abs/2301.07002", family="perturbation", returns="terms")
def opticam(
    inputs: Tensor, activations: Tensor, slope: Slope, *, steps: int = 50, rate: float = 0.1
) -> Tensor:
    """Opti-CAM: channel weights learned for the image, so that the masked image keeps its class.

    S = sum_k softmax(u)_k relu(A_k); u grows y_c(x * n(S)) by Adam, with n(S) the map S, upsampled
    and min-maxed; M = S. (B,3,H,W), (B,C,h,w) -> terms of M. It needs one forward and one backward
    pass per step.

    `steps` and `rate` are Adam's steps and its learning rate. Every image has its own u, which
    starts with equal weights. Many steps magnify rounding, so other machines give slightly
    different maps. Deviations: all steps are taken; the authors stop when the logit falls.
    """
    import torch

    from camcli.methods._masks import create_map_masks

    size = (inputs.shape[2], inputs.shape[3])
    # Adam turns the smallest gradient into a full step. In double precision, a channel without an
    # effect has no gradient, and not rounding errors instead. Not every device has that precision.
    features = activations.relu().cpu().double()
    u = torch.zeros_like(features[:, :, :1, :1], requires_grad=True)
    optimizer = torch.optim.Adam([u], lr=rate, maximize=True)
    for _ in range(steps):
        with torch.enable_grad():
            masks = create_map_masks((u.softmax(dim=1) * features).sum(dim=1), size)
        by_mask = slope(inputs * masks.detach().to(inputs)) * inputs
        (u.grad,) = torch.autograd.grad(masks, u, by_mask.sum(dim=1, keepdim=True).to(masks))
        optimizer.step()
    return (u.detach().softmax(dim=1) * features).to(activations)


@method(
    paper="https://arxiv.org/abs/2103.13859", family="perturbation", option_limits={"quantile": 1}
)
def groupcam(
    inputs: Tensor,
    activations: Tensor,
    gradients: Tensor,
    rescore: RescoreFunction,
    *,
    groups: int = 32,
    quantile: float = 0.7,
) -> Tensor:
    """Group-CAM: groups of Grad-CAM's channels, each weighted with the score of what it shows.

    G_l = relu(sum_{k in l} mean(g_k) A_k), 0 up to its `quantile`; m_l is G_l, upsampled and
    min-maxed; w_l = p_c(x * m_l + b * (1 - m_l)) - p_c(b), with b the blurred image;
    M = relu(sum_l w_l m_l). (B,3,H,W), (B,C,h,w) x2 -> (B,H,W). It needs `groups` + 1 forward
    passes.

    The C channels, in their order, make up to `groups` groups. The blur has 51x51 pixels and
    standard deviation 50. Deviations: none; M is that of the authors' code of June 2021.
    """
    from camcli.core.blur import blur_with_mirror
    from camcli.methods._masks import create_channel_masks, group_channels

    weighted = gradients.mean(dim=(2, 3), keepdim=True) * activations
    masks = create_channel_masks(group_channels(weighted, groups, quantile), inputs, 0)
    blurred = blur_with_mirror(inputs, 51, 50.0)

    def reveal(b: int, which: Tensor) -> Tensor:
        return blurred[b] + masks.create_masks(b, which) * (inputs[b] - blurred[b])

    one = inputs.new_ones(len(inputs), 1) > 0
    hidden = rescore(lambda b, _k: blurred[b : b + 1], one)
    return masks.sum_weighted(rescore(reveal, masks.scored_channels) - hidden).relu()


@method(paper="https://arxiv.org/abs/2101.10710", family="perturbation", returns="terms")
def sidu(
    inputs: Tensor,
    activations: Tensor,
    repredict: RepredictFunction,
    *,
    cutoff: float = 0.1,
    width: float = 0.25,
    channels: int = 0,
) -> Tensor:
    """SIDU: binary channels, weighted with how similar and how unique the masked predictions are.

    m_k is 1 where A_k > `cutoff`, upsampled; P_k = p(x * m_k); D_k = exp(-(p_c(x) - P_kc)^2 /
    (2 width^2)); U_k = sum_j |P_k - P_j|, min-maxed over channels; M = sum_k D_k U_k m_k.
    (B,3,H,W), (B,C,h,w) -> terms of M. It needs one forward pass per channel.

    `channels=N` uses only the N masks that vary most (0: all). Equal masks are predicted once.
    Deviations: none; as in the authors' code, D_k is that of the class.
    """
    import torch

    from camcli.core.maps import normalize_tensor, resize_maps
    from camcli.methods._masks import find_first_equal_rows, select_strongest_channels

    if width == 0:
        raise UsageError("sidu: set width above 0")
    size = (inputs.shape[2], inputs.shape[3])
    masks = select_strongest_channels((activations > cutoff).to(inputs), channels)
    same = find_first_equal_rows(masks.flatten(2))
    scored = same == torch.arange(same.shape[1], device=same.device)
    answers, scores = repredict(
        lambda b, k: inputs[b] * resize_maps(masks[b, k], size)[:, None], scored
    )
    _, whole = repredict(lambda b, _k: inputs[b : b + 1], inputs.new_ones(len(inputs), 1) > 0)
    answers = answers.take_along_dim(same[:, :, None], dim=1)
    apart = torch.cdist(answers, answers, compute_mode="donot_use_mm_for_euclid_dist")
    similarity = (-(((whole - scores.gather(1, same)) / width) ** 2) / 2).exp()
    weights = similarity * normalize_tensor(apart.sum(dim=2), (1,))
    return weights[:, :, None, None] * masks


@method(
    paper="https://arxiv.org/abs/2204.13359",
    family="perturbation",
    works_on=("CNN",),
    choices={"variant": ("plus", "minus", "both")},
    clip_quantile=0.999,
)
def polycam(
    inputs: Tensor,
    stage_activations: Sequence[Tensor],
    rescore: RescoreFunction,
    *,
    variant: str = "both",
    channels: int = 0,
) -> Tensor:
    """Poly-CAM: a Score-CAM of each stage, which adds its detail to the map of the next stage.

    w_k = p_c(x * m_k) for PCAM+, relu(p_c(x) - p_c(x * (1 - m_k))) for PCAM-, and
    relu(p_c(x * m_k) + p_c(x) - p_c(x * (1 - m_k))) for PCAM+-, with m_k as in Score-CAM;
    S = relu(sum_k w_k A_k) of each stage; M = S of the last stage, then for each earlier one
    M = S / up(down(S)) * up(M), with down and up to the sizes of M and S.
    (B,3,H,W), (B,C,h,w) of each stage -> (B,h,w) of the finest. Each channel of each stage needs
    one forward pass, and two with `variant=both`.

    `variant` is plus, minus or both. `channels=N` uses only the N channels of each stage that vary
    most (0: all). The stages are, for each resolution, the last layer after a ReLU; `--layers`
    chooses others. Deviations: the authors min-max a mask before they enlarge it, without 0.1 % of
    the values at each end. S / 0 is 0 here.
    """
    from functools import reduce

    from camcli.methods._masks import add_details, create_channel_masks

    whole = rescore(lambda b, _k: inputs[b : b + 1], inputs.new_ones(len(inputs), 1) > 0)

    def compute_stage_map(activations: Tensor) -> Tensor:
        masks = create_channel_masks(activations, inputs, channels)

        def score(wanted: Tensor) -> Tensor:
            if variant == "plus":
                return rescore(masks.mask_image, wanted)
            lost = whole - rescore(lambda b, k: inputs[b] - masks.mask_image(b, k), wanted)
            return (lost if variant == "minus" else lost + rescore(masks.mask_image, wanted)).relu()

        return masks.weight_activations(score, "probability").sum(dim=1).relu()

    return reduce(add_details, map(compute_stage_map, reversed(stage_activations)))
