"""The class map of a linear classifier, and its bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.heads import ClassifierHead
    from camcli.models.model import Model


def _find_classifier_head(model: Model) -> ClassifierHead | None:
    from camcli.models.introspection.heads import find_head

    if model.output_kind == "similarity":  # a classifier does not compute these outputs
        return None
    return find_head(model.network, model.layers, model.input_size, len(model.labels.names))


CLASSIFIER_HEAD = ModelPart(
    find=_find_classifier_head,
    describe_missing=lambda model: (
        "logits that are linear in a map: pooling, then one linear layer. "
        f"{model.name} has no such map"
    ),
)


def provide_semantic(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """The classifier applied at each position, without its bias: (B,h,w)."""
    return _compute_map_and_bias(state, request)[0]


def provide_class_bias(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """The bias of the classifier for the class: (B,)."""
    return _compute_map_and_bias(state, request)[1]


def _compute_map_and_bias(state: PassState, request: Request) -> tuple[Tensor, Tensor]:
    """Compute the map and the bias together; keep both for later calls."""
    from camcli.models.introspection.heads import compute_semantic_map

    key = ("semantic and class_bias", "")
    if key not in state.cache:
        head = request.get_part(CLASSIFIER_HEAD)
        output = state.recording.get_output(head.layer.name).detach()
        state.cache[key] = compute_semantic_map(head, output, state.logit_weights)
    found: tuple[Tensor, Tensor] = state.cache[key]
    return found


def _collect_semantic_map(state: PassState, request: Request) -> Mapping[str, Tensor]:
    """The semantic map with its bias, unless it is all that the method asks for."""
    if request.method.input_names == ("semantic",):
        return {}
    semantic, bias = _compute_map_and_bias(state, request)
    return {"semantic": semantic + bias[:, None, None]}


def _list_head_needs(request: Request) -> PassNeeds:
    return PassNeeds(copied_layers=(request.get_part(CLASSIFIER_HEAD).layer.name,))


def _list_head_layers(request: Request) -> tuple[Layer, ...]:
    return (request.get_part(CLASSIFIER_HEAD).layer,)


register_provider(
    Provider(
        "semantic",
        provide_semantic,
        class_specific=True,
        model_parts=(CLASSIFIER_HEAD,),
        list_needs=_list_head_needs,
        list_source_layers=_list_head_layers,
        collect_component_maps=_collect_semantic_map,
    )
)
register_provider(
    Provider(
        "class_bias",
        provide_class_bias,
        class_specific=True,
        model_parts=(CLASSIFIER_HEAD,),
        list_needs=_list_head_needs,
    )
)
