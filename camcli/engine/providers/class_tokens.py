"""The attention and the class maps of a network with a token for each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from camcli.engine.providers.attention_weights import name_block_rows
from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.class_token_attention import ClassTokenReader
    from camcli.models.model import Model


def _find_class_token_reader(model: Model) -> ClassTokenReader | None:
    from camcli.models.introspection.class_token_attention import find_class_token_reader

    return find_class_token_reader(model.network, model.attention_modules)


CLASS_TOKENS = ModelPart(
    _find_class_token_reader,
    lambda model: f"a token for each class, as MCTformer has; {model.name} has none",
    select_blocks=lambda reader, layers: reader.select_blocks(layers),
)


def provide_class_attention(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """The attention of the class's token in each block, averaged over heads: (B,L,h,w)."""
    import torch

    rows = request.get_part(CLASS_TOKENS).stack_maps(state.recording.reduced_outputs)
    return torch.einsum("bk,blkhw->blhw", state.logit_weights, rows)


def provide_patch_scores(state: PassState, request: Request, _layer: Layer) -> Tensor | None:
    """The class's map of the patch classifier, with its bias: (B,h,w); None without one."""
    import torch

    layer = request.get_part(CLASS_TOKENS).tokens.patch_layer
    if not layer:
        return None
    maps = state.recording.get_output(layer).detach().float()
    return torch.einsum("bk,bkhw->bhw", state.logit_weights, maps)


def provide_fusion_power(_state: PassState, request: Request, _layer: Layer) -> float:
    """The power of the product of attention and class map: 1/2 in MCTformer+, else 1."""
    return request.get_part(CLASS_TOKENS).tokens.power


def _collect_attention_maps(state: PassState, request: Request) -> Mapping[str, Tensor]:
    """The class token's row of each block, and the sum of all."""
    layers = request.get_part(CLASS_TOKENS).block_layers
    return name_block_rows(layers, provide_class_attention(state, request, layers[0]))


def _collect_patch_scores(state: PassState, request: Request) -> Mapping[str, Tensor]:
    scores = provide_patch_scores(state, request, request.get_part(CLASS_TOKENS).block_layers[0])
    return {} if scores is None else {"cam": scores.relu()}


def _list_row_needs(request: Request) -> PassNeeds:
    return PassNeeds(reducers=request.get_part(CLASS_TOKENS).reducers)


def _list_score_needs(request: Request) -> PassNeeds:
    layer = request.get_part(CLASS_TOKENS).tokens.patch_layer
    return PassNeeds(copied_layers=(layer,) if layer else ())


register_provider(
    Provider(
        "class_attention",
        provide_class_attention,
        cost="attention",
        class_specific=True,
        model_parts=(CLASS_TOKENS,),
        list_needs=_list_row_needs,
        list_source_layers=lambda request: request.get_part(CLASS_TOKENS).block_layers,
        collect_component_maps=_collect_attention_maps,
    )
)
register_provider(
    Provider(
        "patch_scores",
        provide_patch_scores,
        class_specific=True,
        model_parts=(CLASS_TOKENS,),
        list_needs=_list_score_needs,
        collect_component_maps=_collect_patch_scores,
    )
)
register_provider(Provider("fusion_power", provide_fusion_power, model_parts=(CLASS_TOKENS,)))
