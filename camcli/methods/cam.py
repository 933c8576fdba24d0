"""Methods that read the classifier's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


@method(paper="https://arxiv.org/abs/1512.04150", family="classifier", signed=True)
def cam(semantic: Tensor) -> Tensor:
    """CAM: the last map's channels, weighted as the linear classifier after pooling weighs them.

    M_c(x, y) = sum_k w_ck A_k(x, y), without bias and without relu. (B,H,W) -> (B,H,W).

    Raises MethodError where the logits are not linear in any map. Deviations: a LayerNorm between
    pool and classifier is folded into w with the pooled vector's deviation held fixed, which keeps
    the mean of the map the logit; on a CLS-pooled transformer the classifier is read at the patch
    tokens, for which it was not trained (the result says `"head": "linear"`, as it does for every
    linear classifier, and the table of `camcli methods` says so too).
    """
    return semantic
