"""What a network answers, as logits (B,K): out of tuples, dicts and objects, two of a single one.

Knows nothing of what networks are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.introspection.hooks import convert_output


def find_logits(output: Any) -> Tensor | None:
    """The logits in what a network returns; None where there are none.

    A tensor (B,K) or (B,); or the `logits` of an object or dict; or else the first such tensor in a
    tuple, or the only one in a dict.
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
    if not inside or (isinstance(output, Mapping) and len(inside) > 1):
        return None
    return find_logits(inside[0])


def _find_logits_attribute(output: Any) -> Any:
    return getattr(output, "logits", None)


def _list_output_values(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, tuple | list) else []


def to_two_class_logits(logits: Tensor) -> Tensor:
    """One logit z as those of "no" and "yes", (-z, z), whose sigmoids are the probabilities."""
    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


def return_logits(network: nn.Module) -> None:
    """Make a network of camcli's own return logits (B,K), whatever its forward pass returns.

    A hook does it, because a module around the network would change the names of its layers.
    """
    convert_output(network, _output_to_logits)


def _output_to_logits(output: Any) -> Tensor:
    logits = find_logits(output)
    assert logits is not None
    return to_two_class_logits(logits)
