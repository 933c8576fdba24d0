"""Choose the logits among several tensors that a network returns, and make it return only these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import ModelError
from camcli.models.introspection.hooks import convert_output

MAX_OUTPUT_DEPTH = 3  # of dicts and tuples inside each other


def list_score_tensors(output: Any, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """The tensors (B,K) in what a network returns, also in dicts, tuples and objects inside it.

    A name is the path of keys and indices, such as `1` or `heads.breed`; it is `output` for a
    tensor that is returned as it is. A tensor (B,) counts as (B,1).
    """
    if isinstance(output, Tensor):
        flat = output[:, None] if output.ndim == 1 else output
        fits = flat.ndim == 2 and flat.numel() and flat.is_floating_point()
        return {prefix or "output": flat} if fits else {}
    found: dict[str, Tensor] = {}
    for key, value in _list_parts(output) if depth < MAX_OUTPUT_DEPTH else ():
        found |= list_score_tensors(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
    return found


def _list_parts(output: Any) -> list[tuple[Any, Any]]:
    """The named parts of a dict, tuple, list, dataclass or object; none of anything else."""
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, tuple | list):
        return list(zip(getattr(output, "_fields", range(len(output))), output, strict=True))
    if is_dataclass(output):
        return [(field.name, getattr(output, field.name)) for field in fields(output)]
    own = {name: getattr(output, name) for name in ("logits",) if hasattr(output, name)}
    return list({**own, **getattr(output, "__dict__", {})}.items())


def select_logits(
    model: str,
    network: nn.Module,
    output: Any,
    wanted: str | None = None,
    class_count: int | None = None,
) -> tuple[Any, str]:
    """Make a network that camcli owns return its logits alone, if it returns other things too.

    `output` is what it returns for one image; the other arguments are those of `choose_logits`.
    Returns the output that later passes have, and a note on camcli's choice. A hook does it,
    because a module around the network would change the names of its layers.
    """
    found = list_score_tensors(output)
    if wanted is None and (isinstance(output, Tensor) or not found):
        return output, ""
    name = choose_logits(model, output, wanted, class_count)
    convert_output(network, partial(_select_tensor, name=name))
    is_choice = wanted is None and len(found) > 1
    return found[name], f"{model}: the logits are `{name}` of its outputs" if is_choice else ""


def _select_tensor(output: Any, name: str) -> Tensor:
    return list_score_tensors(output)[name]


def choose_logits(
    model: str, output: Any, wanted: str | None = None, class_count: int | None = None
) -> str:
    """The name of the logits among the tensors (1,K) that a network returns for one image.

    `wanted` is a name or index that the user gave. Otherwise it is the only tensor, or the one
    that is named `logits`, or the one with `class_count` columns. Probabilities do not count where
    their logits are there too. Raises ModelError, which lists the tensors, where none or several
    fit.
    """
    found = {name: t for name, t in list_score_tensors(output).items() if len(t) == 1}
    if not found:
        raise ModelError(f"{model} is not a classifier: it returns {describe_output(output)}")
    listed = ", ".join(f"{name} (B,{t.shape[1]})" for name, t in found.items())
    if wanted is not None:
        if wanted not in found:
            raise ModelError(f"{model} returns no {wanted!r}; --logits is one of {listed}")
        return wanted
    scores = {name: t for name, t in found.items() if not _is_function_of_another(t, found)}
    named = [name for name in scores if name.rpartition(".")[2] == "logits"]
    counts = {class_count} | ({1} if class_count == 2 else set())
    fitting = [name for name, t in scores.items() if t.shape[1] in counts]
    for names in (list(scores), fitting, named):
        if len(names) == 1:
            return names[0]
    raise ModelError(
        f"{model} returns several tensors that may be logits: {listed}; choose one with "
        f"--logits NAME, or give the class names with --labels"
    )


def _is_function_of_another(tensor: Tensor, others: Mapping[str, Tensor]) -> bool:
    """Whether these are the probabilities of another of the tensors."""
    same = [t for t in others.values() if t is not tensor and t.shape == tensor.shape]
    return any(
        torch.allclose(tensor, probabilities, atol=1e-5)
        for t in same
        for probabilities in (t.softmax(dim=1), t.log_softmax(dim=1), t.sigmoid())
        if not torch.equal(t, tensor)
    )


def describe_output(output: Any) -> str:
    """The shapes of the tensors in an output, or else its type."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    shapes = [f"{k} {tuple(v.shape)}" for k, v in _list_parts(output) if isinstance(v, Tensor)]
    kind = type(output).__name__
    return f"an object of type {kind}" + (f" with {', '.join(shapes[:6])}" if shapes else "")
