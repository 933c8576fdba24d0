"""How what a method returns becomes one map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from camcli.core.errors import MethodError
from camcli.core.maps import sum_channels
from camcli.engine.providers.attention_weights import ATTENTION_MATRICES
from camcli.engine.providers.base import ModelPart
from camcli.engine.smoothing import Smoothing
from camcli.methods._decomposition import eigen
from camcli.methods.registry import METHODS, Method
from camcli.models.introspection.attention_matrices import AttentionMatrixReader


def choose_map_function(
    method: Method, smoothing: Smoothing, model_parts: Mapping[ModelPart[Any], Any]
) -> Callable[..., Tensor]:
    """The function that makes one map (B,H,W) from what the method returns, and the score (B,K).

    Raises MethodError for a smoothing that the method cannot take.
    """
    if (smoothing.alters_image or smoothing.has_crops) and method.returns == "concepts":
        raise MethodError(
            f"{method.name} would find different concepts in each view; "
            "omit --smooth and --fit tencrop"
        )
    if smoothing.uses_eigen and method.returns != "terms":
        able = ", ".join(name for name, other in METHODS.items() if other.returns == "terms")
        raise MethodError(
            f"--smooth eigen joins channels, but {method.name} has no channels; use it with {able}"
        )
    if method.returns == "terms":
        join = eigen if smoothing.uses_eigen else sum_channels
        return lambda terms, _logit_weights: join(terms)
    if method.returns == "tokens":
        if ATTENTION_MATRICES not in model_parts:
            raise MethodError(f"{method.name} returns tokens, but asks for no attention matrices")
        matrices = model_parts[ATTENTION_MATRICES]
        _check_rows(method, matrices)
        return partial(matrices.tokens_to_map, summary=not method.class_specific)
    return lambda maps, _logit_weights: maps


def _check_rows(method: Method, reader: AttentionMatrixReader) -> None:
    """Raise MethodError if no row of the network's tokens answers what the method asks."""
    if reader.class_token_count and not method.class_specific:
        raise MethodError(
            f"{method.name} follows attention to one CLS token, but this network has a token for "
            f"each class; choose a method of the class, such as mctformer or gradcam"
        )
    if reader.class_token_count and reader.reads_patches:
        raise MethodError(
            f"{method.name} follows attention to the tokens of the class score, but this network "
            f"reads class tokens and patches; try --logits class_logits, mctformer or gradcam"
        )
