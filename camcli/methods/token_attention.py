"""Methods that weight the attention of transformer blocks with what the score makes of it."""

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
    paper="https://arxiv.org/abs/2204.11073",
    family="attention",
    works_on=("ViT",),
    returns="tokens",
    threshold=0.02,
    options_for_chosen_blocks={"block": "mean"},
    refined_threshold=0.15,
)
def gradientattention(
    matrices: Sequence[Tensor], matrix_gradients: Sequence[Tensor], *, block: str = "last"
) -> Tensor:
    """Gradient times attention: the attention of one block that raises the class score.

    R = mean_h relu(A * dy_c/dA) of `block`: "last", "mean" over all blocks, or a number.
    (B,heads,N,N) x2 of each block -> tokens (B,N,N). `--block` or `--layers` choose blocks instead:
    the map is their mean.

    Raises UsageError for a block that does not exist. Deviations: the paper, Grad-SAM, takes the
    mean over all blocks (`--block all`) and over all rows of R. camcli reads the rows of the tokens
    that the classifier reads, as it does for `chefer`.
    """
    pairs = list(zip(matrices, matrix_gradients, strict=True))
    count = len(pairs)
    names = {"last": -1, **{str(n): n for n in range(-count, count)}}
    if block not in {*names, "mean"}:
        raise UsageError(f"--set block={block}: write last, mean or 0..{count - 1}")
    chosen = pairs if block == "mean" else [pairs[names[block]]]
    return reduce(add, ((a * g).relu().mean(dim=1) for a, g in chosen)) / len(chosen)
