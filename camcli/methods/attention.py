"""Methods that read a transformer's attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from camcli.core.errors import UsageError
from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


@method(
    paper="https://arxiv.org/abs/2103.14862",
    works_on=("ViT",),
    threshold=0.1,
    caption="coupled",
    signed=True,
    choices={"part": ("coupled", "attention", "semantic")},
)
def tscam(
    attention: Tensor, semantic: Tensor, class_bias: Tensor, *, part: str = "coupled"
) -> Tensor:
    """TS-CAM: where CLS attends, summed over all blocks, times the semantic map of the class.

    M_c = (sum_l mean_h softmax(q_cls K^T / sqrt d)_l) * F_c, with F_c raw: neither relu nor
    softmax. (B,L,H,W), (B,H,W), (B,) -> (B,H,W).

    `part` "attention" or "semantic" gives either factor alone: the paper's ablation.

    F_c is the convolution head's output for a TS-CAM checkpoint (`"head": "conv"` in the result),
    and for one of SCM (arXiv 2207.10447), whose module is dropped once it is trained.
    Deviations: on a plain transformer its linear classifier is read at the normed patch tokens, for
    which it was not trained (`"head": "linear"`); without a CLS token the mean over all queries
    stands for its row.
    """
    rows, own = attention.sum(dim=1), semantic + class_bias[:, None, None]
    parts = {"coupled": rows * own, "attention": rows, "semantic": own}
    return parts[part]


@method(paper="https://arxiv.org/abs/2010.11929", works_on=("ViT",))
def attention(attention: Tensor, *, block: str = "last") -> Tensor:
    """Raw attention: where the CLS token looks in one block, heads averaged.

    M = mean_h softmax(q_cls K^T / sqrt d) of `block`: "last", "mean" over all, or its number.
    (B,L,H,W) -> (B,H,W). The same for every class.

    Raises UsageError for a block that is not there. Deviations: without a CLS token the mean over
    all queries stands for its row.
    """
    if block == "mean":
        return attention.mean(dim=1)
    count = attention.shape[1]
    names = {"last": -1, **{str(n): n for n in range(-count, count)}}
    if block not in names:
        raise UsageError(f"--set block={block}: write last, mean or 0..{count - 1}")
    return attention[:, names[block]]


HEAD_CHOICES = {"heads": ("mean", "max", "min")}


@method(
    paper="https://arxiv.org/abs/2005.00928",
    works_on=("ViT",),
    returns="tokens",
    choices=HEAD_CHOICES,
    option_limits={"discard": 1},
)
def rollout(matrices: Sequence[Tensor], *, heads: str = "mean", discard: float = 0.0) -> Tensor:
    """Attention rollout: attention multiplied through all blocks, residual paths included.

    A^_l = (A_l + I) / 2 with heads joined and rows renormalised; R = A^_L ... A^_1.
    (B,heads,N,N) of each block -> tokens (B,N,N). The same for every class.

    `heads` says how heads are joined; `discard` is the share of each row's smallest weights that is
    dropped first, the first token's column (CLS's, where there is one) excepted. Deviations: none
    for heads=mean, discard=0.
    """
    joined = (_drop_smallest_weights(_join_heads(matrix, heads), discard) for matrix in matrices)
    return _multiply_matrices([_add_residual(matrix) for matrix in joined])


@method(
    paper="https://arxiv.org/abs/2005.00928", works_on=("ViT",), returns="tokens", threshold=0.1
)
def gradrollout(matrices: Sequence[Tensor], matrix_gradients: Sequence[Tensor]) -> Tensor:
    """Gradient rollout: rollout of that attention which speaks for the class.

    A^_l = (mean_h relu(A_l * dy_c/dA_l) + I) / 2, rows renormalised; R = A^_L ... A^_1.
    (B,heads,N,N) x2 of each block -> tokens (B,N,N).

    Deviations: it has no paper of its own; the gradient's scale is kept, so small gradients leave
    the residual path its weight.
    """
    pairs = zip(matrices, matrix_gradients, strict=True)
    return _multiply_matrices([_add_residual((a * g).relu().mean(dim=1)) for a, g in pairs])


@method(
    paper="https://arxiv.org/abs/2103.15679", works_on=("ViT",), returns="tokens", threshold=0.1
)
def chefer(matrices: Sequence[Tensor], matrix_gradients: Sequence[Tensor]) -> Tensor:
    """Attention relevance (Chefer et al.): what of each block's attention speaks for the class.

    R = I; for each block R <- R + mean_h relu(A_l * dy_c/dA_l) R. (B,heads,N,N) x2 of each block
    -> tokens (B,N,N). Deviations: none; where patches are pooled, theirs are the rows that count.
    """
    relevance = _create_identity(matrices[0])
    for matrix, gradient in zip(matrices, matrix_gradients, strict=True):
        relevance = relevance + (matrix * gradient).relu().mean(dim=1) @ relevance
    return relevance


@method(
    paper="https://arxiv.org/abs/2404.03214", works_on=("ViT",), returns="tokens", threshold=0.4
)
def legrad(block_gradients: Sequence[Tensor]) -> Tensor:
    """LeGrad: how the score, read after each block, would grow with that block's attention.

    M = sum_l mean over heads and queries of relu(ds_l/dA_l), s_l the class's logit of the mean of
    block l's tokens, through the network's norm and classifier. (B,heads,N,N) of each block ->
    tokens (B,1,N).

    Deviations: a convolution head (TS-CAM's) reads the normed tokens of block l as it reads the
    last ones, for it has no logit of a mean.
    """
    return reduce(add, (g.relu().mean(dim=(1, 2))[:, None] for g in block_gradients))


@method(
    paper="https://arxiv.org/abs/2402.05602",
    works_on=("ViT",),
    returns="terms",
    default_layer="first",
    threshold=0.1,
)
def lrp(relevance: Tensor) -> Tensor:
    """AttnLRP: the logit handed back through the network, each layer sharing out what it got.

    R_i = sum_j x_i w_ij / z_j R_j in linear layers; LayerNorm and GELU pass relevance on; softmax:
    R_i = x_i (R_i - s_i sum_j R_j); in A V and Q K^T each factor gets half. M = relu(sum_k R_k) of
    a layer's tokens, the first block's unless `--layers` names others. (B,C,h,w) -> terms of M.

    Computed as activation times a gradient whose rules are changed. It was chosen over Chefer
    2021's transformer attribution (2012.09838), which starts from the same rules but clips
    relevance to be positive and then mixes it with gradients: this one sums to the logit, but for
    biases and what softmax takes, and can be read at any layer. Deviations: the 0 rule in all
    linear layers; the paper tunes a gamma rule for vision transformers, which hides noise.
    """
    return relevance


def _join_heads(matrix: Tensor, heads: str) -> Tensor:
    joined = {"mean": matrix.mean, "max": matrix.amax, "min": matrix.amin}
    found: Tensor = joined[heads](dim=1)  # type: ignore[operator]
    return found


def _drop_smallest_weights(matrix: Tensor, discard: float) -> Tensor:
    """Without the smallest weights of each row; what goes to the first token is kept."""
    count = int(discard * matrix.shape[-1])
    if not count:
        return matrix
    least = matrix[..., 1:].topk(min(count, matrix.shape[-1] - 1), largest=False).indices + 1
    return matrix.scatter(-1, least, 0)


def _add_residual(matrix: Tensor) -> Tensor:
    """(A + I) / 2, each row summing to 1."""
    mixed = matrix + _create_identity(matrix)
    return mixed / mixed.sum(dim=-1, keepdim=True)


def _create_identity(matrix: Tensor) -> Tensor:
    import torch

    count = matrix.shape[-1]
    return torch.eye(count, device=matrix.device).expand(len(matrix), count, count)


def _multiply_matrices(matrices: Sequence[Tensor]) -> Tensor:
    rolled = matrices[0]
    for matrix in matrices[1:]:
        rolled = matrix @ rolled
    return rolled
