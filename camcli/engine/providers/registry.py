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
from camcli.engine.providers import biases
from camcli.engine.providers.attention import (
    _block_gradients,
    _find_matrices,
    _find_rows,
    _matrices,
    _matrices_and_blocks,
    _matrix_gradients,
    _matrix_names,
    _rows,
)
from camcli.engine.providers.base import Finder, Need, Pass
from camcli.engine.providers.classifier import _head, _head_layer, _of_head
from camcli.engine.providers.gradients import (
    _activations,
    _bias_terms,
    _curvature,
    _differentiate,
    _gradients,
    _guided,
    _layer_names,
    _lrp,
    _relevance,
    _slope,
)
from camcli.engine.providers.perturbation import _ablate, _rescore
from camcli.engine.request import Request
from camcli.methods.registry import METHOD_INPUTS as COSTS
from camcli.methods.registry import Method
from camcli.models.introspection import heads


def gather(need: str, seen: Pass, request: Request, layer: Layer | None) -> Any:
    """A need of a method, had once for all methods that share it."""
    where = layer if layer and COSTS[need].layer_specific else NOWHERE
    key = (need, where.name)
    if key not in seen.found:
        seen.found[key] = NEEDS[need].gather(seen, request, where)
    return seen.found[key]


NOWHERE = Layer("", "NCHW", 3, (0, 0))


NEEDS: Mapping[str, Need] = {
    "inputs": Need(lambda seen, _request, _layer: seen.inputs.detach()),
    "activations": Need(_activations, copies=_layer_names),
    "gradients": Need(_gradients, taps=_layer_names),
    "curvature": Need(_curvature, taps=_layer_names, twice=True),
    "relevance": Need(_relevance),
    "differentiate": Need(_differentiate),
    "ablate": Need(_ablate, copies=_layer_names),
    "rescore": Need(_rescore),
    "input_gradients": Need(lambda seen, _request, _layer: seen.gradients[""], input_graph=True),
    "slope": Need(_slope),
    "guided_gradients": Need(_guided),
    "bias_terms": Need(_bias_terms, taps=lambda request: request.biases or {}),
    "attention": Need(
        _rows, readings=lambda request: request.rows.reducers if request.rows else {}
    ),
    "matrices": Need(_matrices, copies=_matrix_names),
    "matrix_gradients": Need(_matrix_gradients, taps=_matrix_names),
    "block_gradients": Need(_block_gradients, taps=_matrices_and_blocks),
    "semantic": Need(partial(_of_head, 0), copies=_head_layer),
    "class_bias": Need(partial(_of_head, 1), copies=_head_layer),
}


def hooked(requests: Sequence[Request]) -> set[str]:
    """The modules whose output is recorded, or changed."""
    names = {
        name
        for request in requests
        for need in (NEEDS[need] for need in request.method.input_names)
        for kind in (need.taps, need.copies, need.readings)
        for name in kind(request)
    }
    rules = (rule for r in requests for rules in (r.guided, r.lrp) for rule in rules or ())
    return {name.partition("[")[0] for name in names.union(rules)}


GLOBAL = "attention over all patch tokens; {model} has {attention}"


FINDERS: Mapping[str, Finder] = {
    "head": Finder(
        _head,
        ("semantic", "class_bias"),
        "logits that are linear in a map: pooling, then one linear layer. {model} has none",
    ),
    "rows": Finder(_find_rows, ("attention",), GLOBAL),
    "matrices": Finder(
        _find_matrices, ("matrices", "matrix_gradients", "block_gradients", "relevance"), GLOBAL
    ),
    "biases": Finder(
        lambda model: biases.find(model.network),
        ("bias_terms",),
        "a network of convolutions and batch norms; {model} has layers whose bias is not fixed",
    ),
    "guided": Finder(
        lambda model: rules.guided(model.network),
        ("guided_gradients",),
        "a network whose activations are all ReLU; {model} is none",
    ),
    "reader": Finder(
        lambda model: heads.find_block_reader(model.network),
        ("block_gradients",),
        "a linear classifier behind a norm of the tokens; {model} has none",
    ),
    "lrp": Finder(
        _lrp, ("relevance",), "a ViT of plain attention, LayerNorm and GELU; {model} is none"
    ),
}


def _fields(m: Method) -> list[str]:
    return [name for name, finder in FINDERS.items() if {*finder.needs} & {*m.input_names}]
