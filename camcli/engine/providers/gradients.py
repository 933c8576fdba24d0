"""Activations, gradients and relevance: from the shared pass, or from a further one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers import backward_rules as rules
from camcli.engine.providers.base import PassState
from camcli.engine.request import Request
from camcli.models.introspection.attention import disable_fused_attention
from camcli.models.introspection.hooks import (
    BackwardRule,
    apply_backward_rules,
    compute_gradients,
    record_outputs,
)
from camcli.models.introspection.layouts import output_to_map
from camcli.models.model import Model


def list_request_layer_names(request: Request) -> Iterable[str]:
    return [layer.name for layer in request.layers]


def provide_activations(state: PassState, _request: Request, layer: Layer) -> Tensor:
    return output_to_map(state.recording.get_output(layer.name), layer).detach().float()


def provide_gradients(state: PassState, _request: Request, layer: Layer) -> Tensor:
    return output_to_map(state.gradients[layer.name], layer).float()


def provide_curvature(state: PassState, _request: Request, layer: Layer) -> Tensor:
    """H A by a second backward pass: the gradient of g . A with A held fixed in the product."""
    tap = state.recording.graph_outputs[layer.name]
    (slope,) = torch.autograd.grad(state.sum_scores(state.logits), tap, create_graph=True)
    if not slope.requires_grad:  # the score is linear in this layer
        return torch.zeros_like(output_to_map(slope, layer))
    (found,) = torch.autograd.grad(
        slope, tap, tap.detach(), retain_graph=True, materialize_grads=True
    )
    return output_to_map(found, layer).float()


def _run_extra_pass(
    state: PassState,
    inputs: Tensor,
    layer_name: str,
    rules: Mapping[str, BackwardRule],
    fused_modules: Iterable[Any] = (),
) -> tuple[Tensor, Tensor]:
    """Another forward and backward pass: a layer's output, or the input's own, and its gradient."""
    with ExitStack() as stack:
        stack.enter_context(disable_fused_attention(tuple(fused_modules)))
        stack.enter_context(apply_backward_rules(state.network, rules))
        taps = [layer_name] if layer_name else []
        recorded = stack.enter_context(record_outputs(state.network, taps, build_graph=True))
        source = inputs.detach().requires_grad_(not layer_name)
        score = state.sum_scores(state.network(source))
        output = recorded.graph_outputs[layer_name] if layer_name else source
        (gradient,) = compute_gradients(score, [output])
    return output.detach().float(), gradient.float()


def provide_differentiate(
    state: PassState, _request: Request, layer: Layer
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def differentiate_at(inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, gradient = _run_extra_pass(state, inputs, layer.name, {})
        return output_to_map(output, layer), output_to_map(gradient, layer)

    return differentiate_at


def provide_slope(state: PassState, _request: Request, _layer: Layer) -> Callable[[Tensor], Tensor]:
    return lambda inputs: _run_extra_pass(state, inputs, "", {})[1]


def provide_guided_gradients(state: PassState, request: Request, _layer: Layer) -> Tensor:
    return _run_extra_pass(state, state.inputs, "", request.guided or {})[1]


def provide_relevance(state: PassState, request: Request, layer: Layer) -> Tensor:
    assert request.matrices is not None
    unfused = request.matrices.fused_modules
    output, gradient = _run_extra_pass(state, state.inputs, layer.name, request.lrp or {}, unfused)
    return output_to_map(output * gradient, layer)


def provide_bias_terms(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    terms = [bias[:, None, None] * state.gradients[n] for n, bias in (request.biases or {}).items()]
    return [term.float() for term in terms if term.shape[2:] != (1, 1)]


def find_model_lrp_rules(model: Model) -> Mapping[str, BackwardRule] | None:
    """Of a model that has matrices: they are asked for first."""
    blocks = tuple(softmax.block_layer.name for softmax in model.attention_modules)
    return rules.find_attnlrp_rules(model.network, blocks)
