"""Methods for networks with a token for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.core.errors import MethodError
from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


@method(
    paper="https://arxiv.org/abs/2203.02891",
    family="attention",
    works_on=("MCTformer",),
    choices={"part": ("fused", "attention", "cam")},
)
def mctformer(
    class_attention: Tensor,
    patch_scores: Tensor | None,
    fusion_power: float,
    *,
    part: str = "fused",
) -> Tensor:
    """MCTformer: the attention of the class's own token, times the class map of the patches.

    M_c = ((sum_l mean_h softmax(q_c K^T / sqrt d)_l) * relu(F_c))^p. q_c is the query of the token
    of class c, F_c the patch classifier's map. Versions 1 and 2 take the last 3 blocks and p = 1,
    MCTformer+ all blocks and p = 1/2; `--block` or `--layers` choose others. Version 1 has no patch
    classifier: M_c is the attention. (B,L,H,W), (B,H,W) -> (B,H,W). One forward pass.

    `part` "attention" or "cam" returns one factor alone. Raises MethodError for part=cam without a
    patch classifier. The authors then spread the map by the attention between patches: `--refine
    affinity:source=attention,sinkhorn=0`. Deviations: that refinement also scales each row of the
    attention to sum 1. MCTformer+ takes the mean over blocks instead of the sum, which is the same
    up to a factor.
    """
    rows = class_attention.sum(dim=1).relu()
    if part == "attention" or (part == "fused" and patch_scores is None):
        return rows
    if patch_scores is None:
        raise MethodError("part=cam: version 1 of MCTformer has no patch classifier; omit it")
    scores = patch_scores.relu()
    return scores if part == "cam" else (rows * scores) ** fusion_power
