"""What the outputs of a network are: logits of classes, probabilities, values or an embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from camcli.core.errors import UsageError
from camcli.core.types import OutputKind
from camcli.models.introspection.embeddings import find_embedding, is_embedding_network
from camcli.models.introspection.logits import find_logits, to_two_class_logits
from camcli.models.introspection.probe import create_probe_image

HeadName = Literal["softmax", "sigmoid", "probabilities", "regression", "embedding"]

SMALLEST_PROBABILITY = 1e-12
# Operations that only change the shape of their input, as autograd names them.
SHAPE_OPERATIONS = (
    *("Squeeze", "Unsqueeze", "View", "Reshape", "Select", "Slice", "Clone", "Alias", "T"),
    *("Permute", "Transpose", "ToCopy", "Expand", "Flatten", "UnsafeView"),
)
PROBABILITY_OPERATIONS = ("Sigmoid", "Softmax", "SafeSoftmax")


@dataclass(frozen=True, slots=True)
class NetworkOutputs:
    """The kind of a network's outputs, how to make (B,K) of what it returns, and a note on it."""

    kind: OutputKind
    convert: Callable[[Any], Tensor]
    note: str = ""


def find_network_outputs(
    network: nn.Module, output: Any, size: tuple[int, int], head: HeadName | OutputKind | None
) -> NetworkOutputs | None:
    """Find out what a network returns; `head` is what the user says. None if it is neither.

    `output` is what it returns for the probe. Without `head`:

    - A timm network without a classifier, and CLIP's image towers, give an embedding; so does a
      network that returns maps or tokens.
    - Outputs are probabilities if they sum to 1, or if a softmax or sigmoid computed them.
    - A single output may be the logit of a class, or a value: "undecided".

    A single logit z becomes two logits (-z, z). Raises UsageError for a head that does not fit.
    """
    logits = find_logits(output)
    if head == "embedding" or (head is None and (logits is None or is_embedding_network(network))):
        found = find_embedding(output)
        return None if found is None else NetworkOutputs("embedding", _to_embedding)
    if logits is None:
        return None
    if head in ("regression", "similarity"):
        return NetworkOutputs("regression" if head == "regression" else "similarity", _to_outputs)
    asked = head if head in ("softmax", "sigmoid") else None
    found_kind = _find_probability_kind(network, logits, size)
    if head == "probabilities" and not _are_probabilities(logits):
        raise UsageError("--head probabilities: the outputs of the model are not all from 0 to 1")
    if head == "probabilities":
        found_kind = "softmax" if _sum_to_one(logits) else "sigmoid"
    if found_kind and asked in (None, found_kind):
        note = "" if head == "probabilities" else _format_note(found_kind)
        return NetworkOutputs(found_kind, partial(_to_logits, found_kind), note)
    if logits.shape[1] == 1 and asked == "softmax":
        raise UsageError("--head softmax: the model has a single output; write --head sigmoid")
    kind = asked or ("undecided" if logits.shape[1] == 1 else "softmax")
    return NetworkOutputs("sigmoid" if kind == "sigmoid" else kind, _to_class_logits)


def _format_note(kind: str) -> str:
    return (
        f"the model computes its own {kind}: camcli takes its outputs as probabilities, without "
        f"another {kind}"
    )


def _to_embedding(output: Any) -> Tensor:
    embedding = find_embedding(output)
    assert embedding is not None
    return embedding


def _to_outputs(output: Any) -> Tensor:
    outputs = find_logits(output)
    assert outputs is not None
    return outputs


def _to_class_logits(output: Any) -> Tensor:
    return to_two_class_logits(_to_outputs(output))


def _to_logits(kind: str, output: Any) -> Tensor:
    """Logits of which softmax or sigmoid gives the probabilities that a network returns.

    log p for a softmax, log p / (1 - p) for a sigmoid: where p is near 1, its own gradient is lost.
    """
    probabilities = _to_outputs(output).float()
    if kind == "softmax":
        return probabilities.clamp_min(SMALLEST_PROBABILITY).log()
    return to_two_class_logits(probabilities.logit(eps=torch.finfo(torch.float32).eps))


def _find_probability_kind(
    network: nn.Module, outputs: Tensor, size: tuple[int, int]
) -> Literal["softmax", "sigmoid"] | None:
    if not _are_probabilities(outputs):
        return None
    if _sum_to_one(outputs):
        return "softmax"
    return "sigmoid" if _is_made_by_sigmoid(network, size) else None


def _are_probabilities(outputs: Tensor) -> bool:
    return bool(((outputs >= 0) & (outputs <= 1)).all())


def _sum_to_one(outputs: Tensor) -> bool:
    sums = outputs.float().sum(dim=1)
    return outputs.shape[1] > 1 and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


@torch.enable_grad()
def _is_made_by_sigmoid(network: nn.Module, size: tuple[int, int]) -> bool:
    """Whether the last operation before the output is a sigmoid or softmax, as autograd saw it.

    Values alone do not tell: a logit may lie between 0 and 1 by chance.
    """
    probe = create_probe_image(network, size).requires_grad_()
    outputs = find_logits(network(probe))
    node: Any = None if outputs is None else outputs.grad_fn
    while node is not None and _read_operation(node) in SHAPE_OPERATIONS:
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None and _read_operation(node) in PROBABILITY_OPERATIONS


def _read_operation(node: Any) -> str:
    """The name of an operation: "SigmoidBackward0" -> "Sigmoid"."""
    name: str = node.name()
    return name.partition("Backward")[0].lstrip("_")
