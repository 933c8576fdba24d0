"""Methods that read a transformer's attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods import method

if TYPE_CHECKING:
    from torch import Tensor


@method(
    paper="https://arxiv.org/abs/2103.14862",
    works_on=("ViT",),
    threshold=0.1,
    result="coupled",
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

    F_c is the convolution head's output for a TS-CAM checkpoint (`"head": "conv"` in the result).
    Deviations: on a plain transformer its linear classifier is read at the normed patch tokens, for
    which it was not trained (`"head": "linear"`); without a CLS token the mean over all queries
    stands for its row.
    """
    rows, own = attention.sum(dim=1), semantic + class_bias[:, None, None]
    parts = {"coupled": rows * own, "attention": rows, "semantic": own}
    return parts[part]
