"""The class map of a linear classifier, and its bias."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import Pass
from camcli.engine.request import Request
from camcli.models.introspection import heads
from camcli.models.introspection.heads import ClassifierHead
from camcli.models.model import Model


def _of_head(part: int, seen: Pass, request: Request, _layer: Layer) -> Tensor:
    """The semantic map, or its bias: both are had at once."""
    key = ("semantic and bias", "")
    if key not in seen.found:
        assert request.head is not None
        output = seen.recorded.get_output(request.head.layer.name)
        seen.found[key] = heads.compute_semantic_map(request.head, output.detach(), seen.score)
    found: Tensor = seen.found[key][part]
    return found


def _head_layer(request: Request) -> Iterable[str]:
    return [request.head.layer.name] if request.head else []


def _head(model: Model) -> ClassifierHead | None:
    return heads.find_head(model.network, model.layers, model.input_size, len(model.labels.names))
