"""Gradients under other backward rules: guided backpropagation and AttnLRP.

A rule keeps a module's output and changes only the gradient that passes through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor, nn

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.hooks import BackwardRule
    from camcli.models.model import Model

RELU_TYPE_NAMES = {"ReLU", "ReLU6"}
GELU_TYPE_NAMES = {"GELU", "GELUTanh", "QuickGELU"}
# Activations by name only: these compute weights.
GATE_TYPE_NAMES = {"Sigmoid", "HardSigmoid", "Hardsigmoid", "Softmax", "MultiheadAttention"}


def _find_activation_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The activation functions of torch and timm in a network, by module name."""
    return {
        name: module
        for name, module in network.named_modules()
        if type(module).__module__.endswith((".activation", ".activations"))
        and type(module).__name__ not in GATE_TYPE_NAMES
    }


def _list_type_names(modules: Mapping[str, nn.Module]) -> set[str]:
    return {type(module).__name__ for module in modules.values()}


def _find_guided_rules(model: Model) -> Mapping[str, BackwardRule] | None:
    """Guided backpropagation, R = 1[x > 0] relu(R') at each ReLU; None with other activations.

    Source: https://arxiv.org/abs/1412.6806
    """
    activations = _find_activation_modules(model.network)
    if not activations or _list_type_names(activations) - RELU_TYPE_NAMES:
        return None
    return dict.fromkeys(activations, _clamp_gradient)


def _clamp_gradient(_module: Any, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.relu())  # type: ignore[no-untyped-call]
    return output


def find_attnlrp_rules(model: Model) -> Mapping[str, BackwardRule] | None:
    """AttnLRP as backward rules; None if the network has more than attention, LayerNorm and GELU.

    With these rules activation times gradient is relevance: LayerNorm keeps its deviation fixed,
    GELU its slope, and each factor of a product gets half. Source: arXiv 2402.05602
    """
    network = model.network
    blocks = tuple(attention.block_layer.name for attention in model.attention_modules)
    if getattr(network, "attn_pool", None) is not None or not all(
        _is_standard_block(network.get_submodule(block)) for block in blocks
    ):
        return None
    prefixes = tuple(f"{block}." for block in blocks)
    activations = _find_activation_modules(network).items()
    outside = {name: module for name, module in activations if not name.startswith(prefixes)}
    if _list_type_names(outside) & GELU_TYPE_NAMES:
        return None
    rules = _create_norm_rules(network)
    for block in blocks:
        rules |= _create_block_rules(network, block)
    return rules


def _create_norm_rules(network: nn.Module) -> dict[str, BackwardRule]:
    from torch import nn

    return {
        name: _freeze_deviation
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
    }


def _create_block_rules(network: nn.Module, block: str) -> dict[str, BackwardRule]:
    activations = _find_activation_modules(network.get_submodule(block))
    rules: dict[str, BackwardRule] = {f"{block}.{name}": _freeze_slope for name in activations}
    return rules | {f"{block}.attn.{name}": _halve_gradient for name in ("qkv", "attn_drop")}


def _is_standard_block(block: Any) -> bool:
    """Whether a block is attention from `qkv`, LayerNorm and GELU, and nothing else."""
    from torch import nn

    norms = [m for m in block.modules() if "norm" in type(m).__name__.lower()]
    return (
        hasattr(getattr(block, "attn", None), "qkv")
        and getattr(block.attn, "gate", None) is None
        and all(isinstance(norm, nn.LayerNorm) for norm in norms)
        and not _list_type_names(_find_activation_modules(block)) - GELU_TYPE_NAMES
    )


def _halve_gradient(_module: Any, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output / 2 + (output / 2).detach()


def _freeze_deviation(norm: Any, inputs: tuple[Any, ...], _output: Tensor) -> Tensor:
    (x,) = inputs
    sigma = (x.var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt().detach()
    standard: Tensor = (x - x.mean(dim=-1, keepdim=True)) / sigma
    if norm.weight is None:
        return standard
    scaled: Tensor = standard * norm.weight
    return scaled if norm.bias is None else scaled + norm.bias


def _freeze_slope(_module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    (x,) = inputs
    tiny = x.abs() < 1e-6
    slope = (output / x.where(~tiny, 1)).where(~tiny, 0.5).detach()
    same: Tensor = slope * x
    return same


GUIDED_RULES = ModelPart(
    _find_guided_rules,
    lambda model: f"a network whose activations are all ReLU; {model.name} has others",
)


def provide_guided_gradients(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """The gradient of the score by the inputs, under guided backpropagation: (B,3,H,W)."""
    return state.run_extra_pass(state.inputs, backward_rules=request.get_part(GUIDED_RULES))[1]


register_provider(
    Provider(
        "guided_gradients",
        provide_guided_gradients,
        cost="gradient",
        class_specific=True,
        model_parts=(GUIDED_RULES,),
        list_needs=lambda request: PassNeeds(
            batch_norms=True, other_hooked_modules=tuple(request.get_part(GUIDED_RULES))
        ),
    )
)
