"""Find the logits (B,K) in what a network returns, and make a network return only these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.introspection.hooks import convert_output


def find_logits(output: Any) -> Tensor | None:
    """The logits (B,K) in the output of a network, or None.

    The output may be a tensor (B,K) or (B,); an object or dict with `logits`; a tuple or list,
    whose first such tensor counts; or a dict with exactly one such tensor.
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
    """A single logit z as the logits of "no" and "yes", (-z, z); other logits as they are.

    The sigmoids of (-z, z) are the probabilities of "no" and "yes".
    """
    return torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits


def return_logits(network: nn.Module) -> None:
    """Make a network that camcli owns return logits (B,K), for any output of its forward pass.

    A hook does it, because a module around the network would change the names of its layers.
    """
    convert_output(network, _output_to_logits)


def _output_to_logits(output: Any) -> Tensor:
    logits = find_logits(output)
    assert logits is not None
    return to_two_class_logits(logits)
