"""What methods need, gathered from one forward pass or by further ones. Knows no formulas.

Each need has what must be tapped or read while the network runs, and what to make of it after.
`camcli.methods` says what they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from camcli.core.types import Layer
from camcli.engine.providers import backward_rules as rules
from camcli.engine.providers.attention import (
    find_model_matrix_reader,
    find_model_row_reader,
    list_matrix_and_block_names,
    list_matrix_names,
    provide_attention,
    provide_block_gradients,
    provide_matrices,
    provide_matrix_gradients,
)
from camcli.engine.providers.base import HandleFinder, PassState, Provider
from camcli.engine.providers.biases import find_biases
from camcli.engine.providers.classifier import (
    find_model_head,
    list_head_layer_names,
    provide_head_part,
)
from camcli.engine.providers.gradients import (
    find_model_lrp_rules,
    list_request_layer_names,
    provide_activations,
    provide_bias_terms,
    provide_curvature,
    provide_differentiate,
    provide_gradients,
    provide_guided_gradients,
    provide_relevance,
    provide_slope,
)
from camcli.engine.providers.perturbation import provide_ablate, provide_rescore
from camcli.engine.request import Request
from camcli.methods.registry import METHOD_INPUTS as COSTS
from camcli.methods.registry import Method
from camcli.models.introspection.heads import find_block_reader


def provide_input(input_name: str, state: PassState, request: Request, layer: Layer | None) -> Any:
    """A need of a method, had once for all methods that share it."""
    where = layer if layer and COSTS[input_name].layer_specific else NO_LAYER
    key = (input_name, where.name)
    if key not in state.cache:
        state.cache[key] = PROVIDERS[input_name].provide(state, request, where)
    return state.cache[key]


NO_LAYER = Layer("", "NCHW", 3, (0, 0))


PROVIDERS: Mapping[str, Provider] = {
    "inputs": Provider(lambda seen, _request, _layer: seen.inputs.detach()),
    "activations": Provider(provide_activations, list_copied_layers=list_request_layer_names),
    "gradients": Provider(provide_gradients, list_graph_layers=list_request_layer_names),
    "curvature": Provider(
        provide_curvature, list_graph_layers=list_request_layer_names, needs_double_backward=True
    ),
    "relevance": Provider(provide_relevance),
    "differentiate": Provider(provide_differentiate),
    "ablate": Provider(provide_ablate, list_copied_layers=list_request_layer_names),
    "rescore": Provider(provide_rescore),
    "input_gradients": Provider(
        lambda seen, _request, _layer: seen.gradients[""], needs_input_graph=True
    ),
    "slope": Provider(provide_slope),
    "guided_gradients": Provider(provide_guided_gradients),
    "bias_terms": Provider(
        provide_bias_terms, list_graph_layers=lambda request: request.biases or {}
    ),
    "attention": Provider(
        provide_attention,
        find_reducers=lambda request: request.rows.reducers if request.rows else {},
    ),
    "matrices": Provider(provide_matrices, list_copied_layers=list_matrix_names),
    "matrix_gradients": Provider(provide_matrix_gradients, list_graph_layers=list_matrix_names),
    "block_gradients": Provider(
        provide_block_gradients, list_graph_layers=list_matrix_and_block_names
    ),
    "semantic": Provider(partial(provide_head_part, 0), list_copied_layers=list_head_layer_names),
    "class_bias": Provider(partial(provide_head_part, 1), list_copied_layers=list_head_layer_names),
}


def list_hooked_names(requests: Sequence[Request]) -> set[str]:
    """The modules whose output is recorded, or changed."""
    names = {
        name
        for request in requests
        for need in (PROVIDERS[need] for need in request.method.input_names)
        for kind in (need.list_graph_layers, need.list_copied_layers, need.find_reducers)
        for name in kind(request)
    }
    rules = (rule for r in requests for rules in (r.guided, r.lrp) for rule in rules or ())
    return {name.partition("[")[0] for name in names.union(rules)}


GLOBAL_ATTENTION_MESSAGE = "attention over all patch tokens; {model} has {attention}"


HANDLE_FINDERS: Mapping[str, HandleFinder] = {
    "head": HandleFinder(
        find_model_head,
        ("semantic", "class_bias"),
        "logits that are linear in a map: pooling, then one linear layer. {model} has none",
    ),
    "rows": HandleFinder(find_model_row_reader, ("attention",), GLOBAL_ATTENTION_MESSAGE),
    "matrices": HandleFinder(
        find_model_matrix_reader,
        ("matrices", "matrix_gradients", "block_gradients", "relevance"),
        GLOBAL_ATTENTION_MESSAGE,
    ),
    "biases": HandleFinder(
        lambda model: find_biases(model.network),
        ("bias_terms",),
        "a network of convolutions and batch norms; {model} has layers whose bias is not fixed",
    ),
    "guided": HandleFinder(
        lambda model: rules.find_guided_rules(model.network),
        ("guided_gradients",),
        "a network whose activations are all ReLU; {model} is none",
    ),
    "reader": HandleFinder(
        lambda model: find_block_reader(model.network),
        ("block_gradients",),
        "a linear classifier behind a norm of the tokens; {model} has none",
    ),
    "lrp": HandleFinder(
        find_model_lrp_rules,
        ("relevance",),
        "a ViT of plain attention, LayerNorm and GELU; {model} is none",
    ),
}


def list_handle_names(m: Method) -> list[str]:
    return [
        name for name, finder in HANDLE_FINDERS.items() if {*finder.input_names} & {*m.input_names}
    ]
