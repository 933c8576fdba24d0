"""Find the logits (B,K) in what a network returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def find_logits(output: Any) -> Tensor | None:
    """The logits (B,K) in the output of a network, or None.

    The output may be a tensor (B,K) or (B,); an object or dict with `logits`; a tuple or list,
    whose first such tensor counts; or a dict with exactly one such tensor. Probabilities beside
    their logits do not count.
    """
    if isinstance(output, Tensor):
        flat = output[:, None] if output.ndim == 1 else output
        return flat if flat.ndim == 2 and flat.numel() and flat.is_floating_point() else None
    named = output.get("logits") if isinstance(output, Mapping) else _find_logits_attribute(output)
    if named is not None:
        return find_logits(named)
    inside = [
        part
        for part in _list_output_values(output)
        if isinstance(part, Tensor) and part.ndim in (1, 2)
    ]
    inside = _drop_probabilities(inside)
    if not inside or (isinstance(output, Mapping) and len(inside) > 1):
        return None
    return find_logits(inside[0])


def _drop_probabilities(parts: list[Tensor]) -> list[Tensor]:
    """Leave out tensors that are the softmax or sigmoid of another one, which are the logits."""
    return [
        part
        for part in parts
        if not any(_is_activation_of(part, other) for other in parts if other is not part)
    ]


def _is_activation_of(part: Tensor, other: Tensor) -> bool:
    if part.shape != other.shape or part.ndim != 2 or not other.is_floating_point():
        return False
    found = part.detach().float()
    if not ((found >= 0) & (found <= 1)).all():
        return False
    logits = other.detach().float()
    activations = (logits.softmax(dim=1), logits.sigmoid())
    return any(torch.allclose(found, each, rtol=1e-3, atol=1e-5) for each in activations)


def _find_logits_attribute(output: Any) -> Any:
    return getattr(output, "logits", None)


def _list_output_values(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, tuple | list) else []


def to_two_class_logits(logits: Tensor) -> Tensor:
    """A single logit z as the logits of "no" and "yes", (-z, z); other logits as they are.

    The sigmoids of (-z, z) are the probabilities of "no" and "yes".
    """
    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits
