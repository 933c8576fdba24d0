"""The class map of a linear classifier, and its bias."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import PassState
from camcli.engine.request import Request
from camcli.models.introspection.heads import ClassifierHead, compute_semantic_map, find_head
from camcli.models.model import Model


def provide_head_part(part_index: int, state: PassState, request: Request, _layer: Layer) -> Tensor:
    """The semantic map, or its bias: both are had at once."""
    key = ("semantic and bias", "")
    if key not in state.cache:
        assert request.head is not None
        output = state.recording.get_output(request.head.layer.name)
        state.cache[key] = compute_semantic_map(request.head, output.detach(), state.logit_weights)
    found: Tensor = state.cache[key][part_index]
    return found


def list_head_layer_names(request: Request) -> Iterable[str]:
    return [request.head.layer.name] if request.head else []


def find_model_head(model: Model) -> ClassifierHead | None:
    return find_head(model.network, model.layers, model.input_size, len(model.labels.names))
