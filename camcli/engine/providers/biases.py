"""The part of the score that each bias of a convolutional network contributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor, nn

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.model import Model


def _find_biases(model: Model) -> Mapping[str, Tensor] | None:
    """The bias (C,) of each layer, by the name under which the layer's output is recorded.

    Convolutions store theirs; that of a batch norm is beta - mean gamma / sigma. None if the
    network has no biases, or has other norms, which add no fixed amount.
    """
    modules = dict(model.network.named_modules())
    norms = [m for m in modules.values() if "norm" in type(m).__name__.lower()]
    if not all(_is_affine_batch_norm(norm) for norm in norms):
        return None
    biases = {
        _find_hook_name(name, module): bias
        for name, module in modules.items()
        if (bias := _compute_bias(module)) is not None
    }
    return biases or None


def _is_affine_batch_norm(norm: nn.Module) -> bool:
    """Whether a norm is a batch norm with statistics and weights of its own."""
    from torch import nn

    return isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.running_var is not None


def _find_hook_name(name: str, module: nn.Module) -> str:
    """The module that outputs the sum; timm has a `drop` between a norm and its activation."""
    return f"{name}.drop" if hasattr(module, "act") and hasattr(module, "drop") else name


def _compute_bias(module: nn.Module) -> Tensor | None:
    from torch import nn

    if isinstance(module, nn.Conv2d):
        return module.bias
    if not isinstance(module, nn.BatchNorm2d):
        return None
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return None
    return module.bias - mean * (module.weight / (variance + module.eps).sqrt())


BIASES = ModelPart(
    _find_biases,
    lambda model: (
        "a network of convolutions and batch norms; "
        f"{model.name} has layers whose bias is not fixed"
    ),
)


def provide_bias_terms(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """For each layer with biases, bias times gradient of the score by its output: (B,C,h,w)."""
    biases = request.get_part(BIASES)
    terms = [bias[:, None, None] * state.gradients[name] for name, bias in biases.items()]
    return [term.float() for term in terms if term.shape[2:] != (1, 1)]


register_provider(
    Provider(
        "bias_terms",
        provide_bias_terms,
        cost="gradient",
        class_specific=True,
        model_parts=(BIASES,),
        list_needs=lambda request: PassNeeds(
            graph_layers=tuple(request.get_part(BIASES)), batch_norms=True
        ),
    )
)
