"""Other rules for the backward pass: what modules are made of so that gradients mean relevance.

Each rule keeps a module's output as it is and changes only how gradients pass. Knows no methods.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.introspection.hooks import BackwardRule

RELU_TYPE_NAMES = ("ReLU", "ReLU6")
GELU_TYPE_NAMES = ("GELU", "GELUTanh", "QuickGELU")
GATE_TYPE_NAMES = (
    "Sigmoid",
    "HardSigmoid",
    "Hardsigmoid",
    "Softmax",
)  # they weigh; they do not activate


def find_activation_modules(network: nn.Module) -> dict[str, nn.Module]:
    """The modules that are activation functions, by name: torch's and timm's."""
    return {
        name: module
        for name, module in network.named_modules()
        if type(module).__module__.endswith((".activation", ".activations"))
        and type(module).__name__ not in (*GATE_TYPE_NAMES, "MultiheadAttention")
    }


def find_guided_rules(network: nn.Module) -> dict[str, BackwardRule] | None:
    """Guided backpropagation, R = 1[x > 0] relu(R') at each ReLU; None with other activations.

    Source: https://arxiv.org/abs/1412.6806
    """
    found = find_activation_modules(network)
    if not found or {type(m).__name__ for m in found.values()} - {*RELU_TYPE_NAMES}:
        return None
    return dict.fromkeys(found, _clamp_gradient)


def _clamp_gradient(_module: Any, _inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    if output.requires_grad:
        output.register_hook(torch.relu)  # type: ignore[no-untyped-call]
    return output


def find_attnlrp_rules(
    network: nn.Module, blocks: tuple[str, ...]
) -> dict[str, BackwardRule] | None:
    """AttnLRP as rules for gradients; None where there is more to rule than attention and GELU.

    Then activation times gradient is relevance: LayerNorm with its deviation, and GELU with its
    slope, held fixed; each factor of a product of two gets half. Source: arXiv 2402.05602
    """
    if getattr(network, "attn_pool", None) is not None or not all(
        _is_standard_block(network.get_submodule(block)) for block in blocks
    ):
        return None
    within = tuple(f"{block}." for block in blocks)
    outside = [m for n, m in find_activation_modules(network).items() if not n.startswith(within)]
    if {type(m).__name__ for m in outside} & {*GELU_TYPE_NAMES}:
        return None
    rules: dict[str, BackwardRule] = {
        name: _freeze_deviation
        for name, module in network.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    for block in blocks:
        inside = find_activation_modules(network.get_submodule(block))
        rules |= {f"{block}.{name}": _freeze_slope for name in inside}
        rules |= {f"{block}.attn.{name}": _halve_gradient for name in ("qkv", "attn_drop")}
    return rules


def _is_standard_block(block: Any) -> bool:
    """Whether a block is attention from `qkv`, LayerNorm and GELU, and nothing else."""
    norms = [m for m in block.modules() if "norm" in type(m).__name__.lower()]
    return (
        hasattr(getattr(block, "attn", None), "qkv")
        and getattr(block.attn, "gate", None) is None
        and all(isinstance(norm, nn.LayerNorm) for norm in norms)
        and not {type(m).__name__ for m in find_activation_modules(block).values()}
        - {*GELU_TYPE_NAMES}
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
