"""Methods that read the weights of the classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


@method(paper="https://arxiv.org/abs/1512.04150", family="classifier", signed=True)
def cam(semantic: Tensor) -> Tensor:
    """CAM: the channels of the last layer, weighted with the weights of the linear classifier.

    M_c(x, y) = sum_k w_ck A_k(x, y), without bias and without relu. (B,H,W) -> (B,H,W).

    Raises MethodError if the logits are not linear in any map. Deviations: if a LayerNorm lies
    between pooling and classifier, camcli folds it into w and keeps the standard deviation of the
    pooled vector fixed, so that the mean of the map stays the logit. On a CLS-pooled transformer
    camcli reads the classifier at the patch tokens, for which it was not trained. The result then
    has `"head": "linear"`, as for every linear classifier.
    """
    return semantic
