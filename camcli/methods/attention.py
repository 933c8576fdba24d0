"""Methods that read the attention of a transformer."""

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
    """TS-CAM: the CLS attention, summed over all blocks, times the semantic map of the class.

    M_c = (sum_l mean_h softmax(q_cls K^T / sqrt d)_l) * F_c, with F_c raw: without relu and
    softmax. (B,L,H,W), (B,H,W), (B,) -> (B,H,W).

    `part` "attention" or "semantic" returns one factor alone, as in the paper's ablation. `--block`
    or `--layers` choose the blocks of the sum: `--block 8..11`.

    For a TS-CAM checkpoint, F_c is the output of the convolution head (`"head": "conv"` in the
    result). The same holds for SCM (arXiv 2207.10447), which drops its own module after training.
    Deviations: on a plain transformer camcli reads the linear classifier at the normed patch
    tokens, for which it was not trained (`"head": "linear"`). Without a CLS token camcli takes the
    mean over all queries instead of the CLS row.
    """
    rows, own = attention.sum(dim=1), semantic + class_bias[:, None, None]
    parts = {"coupled": rows * own, "attention": rows, "semantic": own}
    return parts[part]


@method(
    paper="https://arxiv.org/abs/2010.11929",
    works_on=("ViT",),
    options_for_chosen_blocks={"block": "mean"},
    refined_threshold=0.2,
)
def attention(
    head_attention: Sequence[Tensor], *, block: str = "last", head: str = "mean"
) -> Tensor:
    """Raw attention: the CLS attention of one block, averaged over heads.

    M = mean_h softmax(q_cls K^T / sqrt d) of `block`: "last", "mean" over all blocks, or a number.
    (B,heads,H,W) of each block -> (B,H,W). The map is the same for every class. `--block` or
    `--layers` choose blocks instead: the map is their mean, and a grid shows each one.

    `head` is "mean" or the number of one head, from 0; -1 is the last. With `--block N` a grid
    shows every head of that block. Raises UsageError for a block or a head that does not exist.
    Deviations: without a CLS token camcli takes the mean over all queries instead of the CLS row.
    """
    count = len(head_attention)
    names = {"last": -1, **{str(n): n for n in range(-count, count)}}
    if block not in {*names, "mean"}:
        raise UsageError(f"--set block={block}: write last, mean or 0..{count - 1}")
    chosen = head_attention if block == "mean" else [head_attention[names[block]]]
    return reduce(add, (select_head(maps, head) for maps in chosen)) / len(chosen)


def select_head(maps: Tensor, head: str) -> Tensor:
    """The map (B,H,W) of one head, or the mean over heads. Raises UsageError for other heads."""
    if head == "mean":
        return maps.mean(dim=1)
    count = maps.shape[1]
    if head not in map(str, range(-count, count)):
        raise UsageError(f"--set head={head}: write mean or 0..{count - 1}, the heads of the block")
    return maps[:, int(head)]


HEAD_CHOICES = {"heads": ("mean", "max", "min")}


@method(
    paper="https://arxiv.org/abs/2005.00928",
    works_on=("ViT",),
    returns="tokens",
    choices=HEAD_CHOICES,
    option_limits={"discard": 1},
    refined_threshold=0.28,
)
def rollout(matrices: Sequence[Tensor], *, heads: str = "mean", discard: float = 0.0) -> Tensor:
    """Attention rollout: the product of the attention of all blocks, with residual connections.

    A^_l = (A_l + I) / 2, with heads joined and rows renormalised; R = A^_L ... A^_1.
    (B,heads,N,N) of each block -> tokens (B,N,N). The map is the same for every class. With
    `--block` or `--layers` only the chosen blocks are factors: `--block 4..11` starts at block 4.

    `heads` is how heads are joined. `discard` is the share of each row's smallest weights that
    becomes 0 first; the column of the first token (usually CLS) is kept. Deviations: none for
    heads=mean, discard=0.
    """
    joined = (_drop_smallest_weights(_join_heads(matrix, heads), discard) for matrix in matrices)
    return _multiply_matrices([_add_residual(matrix) for matrix in joined])


@method(
    paper="https://arxiv.org/abs/2005.00928",
    works_on=("ViT",),
    returns="tokens",
    threshold=0.1,
    refined_threshold=0.26,
)
def gradrollout(matrices: Sequence[Tensor], matrix_gradients: Sequence[Tensor]) -> Tensor:
    """Gradient rollout: rollout of the attention that raises the class score.

    A^_l = (mean_h relu(A_l * dy_c/dA_l) + I) / 2, rows renormalised; R = A^_L ... A^_1.
    (B,heads,N,N) x2 of each block -> tokens (B,N,N).

    Deviations: no paper describes it; the address is that of rollout. camcli keeps the scale of the
    gradient, so with small gradients the residual connection dominates.
    """
    pairs = zip(matrices, matrix_gradients, strict=True)
    return _multiply_matrices([_add_residual((a * g).relu().mean(dim=1)) for a, g in pairs])


@method(
    paper="https://arxiv.org/abs/2103.15679",
    works_on=("ViT",),
    returns="tokens",
    threshold=0.1,
    refined_threshold=0.2,
)
def chefer(matrices: Sequence[Tensor], matrix_gradients: Sequence[Tensor]) -> Tensor:
    """Attention relevance (Chefer et al.): the attention that raises the class score, accumulated.

    R = I; for each block R <- R + mean_h relu(A_l * dy_c/dA_l) R. (B,heads,N,N) x2 of each block
    -> tokens (B,N,N). `--block` or `--layers` choose the blocks. Deviations: none. If the network
    pools patches, their rows give the map.
    """
    relevance = _create_identity(matrices[0])
    for matrix, gradient in zip(matrices, matrix_gradients, strict=True):
        relevance = relevance + (matrix * gradient).relu().mean(dim=1) @ relevance
    return relevance


@method(
    paper="https://arxiv.org/abs/2404.03214", works_on=("ViT",), returns="tokens", threshold=0.4
)
def legrad(block_gradients: Sequence[Tensor]) -> Tensor:
    """LeGrad: the positive gradient of the score after each block with respect to its attention.

    M = sum_l mean over heads and queries of relu(ds_l/dA_l). s_l is the class's logit for the mean
    token of block l, computed with the network's final norm and classifier. (B,heads,N,N) of each
    block -> tokens (B,1,N). `--block` or `--layers` choose the blocks of the sum.

    Deviations: a convolution head (TS-CAM's) has no logit for a mean token; it reads the normed
    tokens of block l as it reads the last ones.
    """
    return reduce(add, (g.relu().mean(dim=(1, 2))[:, None] for g in block_gradients))


def _join_heads(matrix: Tensor, heads: str) -> Tensor:
    joined = {"mean": matrix.mean, "max": matrix.amax, "min": matrix.amin}
    found: Tensor = joined[heads](dim=1)  # type: ignore[operator]
    return found


def _drop_smallest_weights(matrix: Tensor, discard: float) -> Tensor:
    """Set the smallest weights of each row to 0, except in the column of the first token."""
    count = int(discard * matrix.shape[-1])
    if not count:
        return matrix
    least = matrix[..., 1:].topk(min(count, matrix.shape[-1] - 1), largest=False).indices + 1
    return matrix.scatter(-1, least, 0)


def _add_residual(matrix: Tensor) -> Tensor:
    """(A + I) / 2, with rows that sum to 1."""
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
