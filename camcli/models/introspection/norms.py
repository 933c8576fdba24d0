"""Normalization layers between the pooled features and the classifier, as formulas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class NormFormula:
    """A norm of vectors p (B,C): (p - c mean p) / sqrt(spread(p) + eps), c = 1 if centered."""

    is_centered: bool
    compute_spread: Callable[[Tensor], Tensor]


# By the start of the class name, because every library has classes of its own for each norm.
NORM_FORMULAS = {
    "layernorm": NormFormula(True, lambda pooled: pooled.var(dim=1, correction=0)),
    "rmsnorm": NormFormula(False, lambda pooled: pooled.square().mean(dim=1)),
    "simplenorm": NormFormula(False, lambda pooled: pooled.var(dim=1)),
}


@dataclass(frozen=True, slots=True)
class NormStep:
    """A norm with the deviation of given vectors held fixed: it is linear in the vectors then.

    `inverse_deviation` is (B,); `gamma` and `beta` are (C,), 1 and 0 if the norm has none.
    """

    is_centered: bool
    inverse_deviation: Tensor
    gamma: Tensor
    beta: Tensor


def find_norms(network: nn.Module, channels: int) -> list[nn.Module]:
    """The norms over that many channels, the last first: it likely precedes the classifier."""
    known = [module for module in network.modules() if _find_norm_formula(module)]
    return [m for m in reversed(known) if getattr(m, "normalized_shape", ()) == (channels,)]


def compute_norm_step(pooled: Tensor, norm: Any) -> NormStep:
    """The deviations of pooled vectors (B,C) and the parameters of a norm."""
    formula = _find_norm_formula(norm)
    assert formula is not None
    eps = torch.finfo(pooled.dtype).eps if norm.eps is None else norm.eps
    parameters = dict(norm.named_parameters())
    return NormStep(
        is_centered=formula.is_centered,
        inverse_deviation=(formula.compute_spread(pooled) + eps).rsqrt(),
        gamma=parameters.get("weight", torch.ones_like(pooled[0])),
        beta=parameters.get("bias", torch.zeros_like(pooled[0])),
    )


def apply_norm(pooled: Tensor, norm: nn.Module | None) -> Tensor:
    """Apply a norm to vectors (B,C). A call would not do: timm's 2-D norms want maps."""
    if norm is None:
        return pooled
    step = compute_norm_step(pooled, norm)
    centered = pooled - pooled.mean(dim=1, keepdim=True) if step.is_centered else pooled
    return centered * step.inverse_deviation[:, None] * step.gamma + step.beta


def _find_norm_formula(norm: nn.Module) -> NormFormula | None:
    name = type(norm).__name__.casefold()
    return next((f for start, f in NORM_FORMULAS.items() if name.startswith(start)), None)
