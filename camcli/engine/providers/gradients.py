"""Activations, gradients and relevance: from the shared pass, or from a further one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers import backward_rules as rules
from camcli.engine.providers.base import Pass
from camcli.engine.request import Request
from camcli.models.introspection.attention import disable_fused_attention
from camcli.models.introspection.hooks import (
    BackwardRule,
    apply_backward_rules,
    compute_gradients,
    record_outputs,
)
from camcli.models.introspection.layers import output_to_map
from camcli.models.model import Model


def _layer_names(request: Request) -> Iterable[str]:
    return [layer.name for layer in request.layers]


def _activations(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    return output_to_map(seen.recorded.get_output(layer.name), layer).detach().float()


def _gradients(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    return output_to_map(seen.gradients[layer.name], layer).float()


def _curvature(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    """H A by a second backward pass: the gradient of g . A with A held fixed in the product."""
    tap = seen.recorded.graph_outputs[layer.name]
    (slope,) = torch.autograd.grad(seen.summed(seen.logits), tap, create_graph=True)
    if not slope.requires_grad:  # the score is linear in this layer
        return torch.zeros_like(output_to_map(slope, layer))
    (found,) = torch.autograd.grad(
        slope, tap, tap.detach(), retain_graph=True, materialize_grads=True
    )
    return output_to_map(found, layer).float()


def _again(
    seen: Pass,
    inputs: Tensor,
    tap: str,
    rules: Mapping[str, BackwardRule],
    unfused: Iterable[Any] = (),
) -> tuple[Tensor, Tensor]:
    """Another forward and backward pass: a layer's output, or the input's own, and its gradient."""
    with ExitStack() as stack:
        stack.enter_context(disable_fused_attention(tuple(unfused)))
        stack.enter_context(apply_backward_rules(seen.network, rules))
        taps = [tap] if tap else []
        recorded = stack.enter_context(record_outputs(seen.network, taps, build_graph=True))
        source = inputs.detach().requires_grad_(not tap)
        score = seen.summed(seen.network(source))
        output = recorded.graph_outputs[tap] if tap else source
        (gradient,) = compute_gradients(score, [output])
    return output.detach().float(), gradient.float()


def _differentiate(
    seen: Pass, _request: Request, layer: Layer
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def at(inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, gradient = _again(seen, inputs, layer.name, {})
        return output_to_map(output, layer), output_to_map(gradient, layer)

    return at


def _slope(seen: Pass, _request: Request, _layer: Layer) -> Callable[[Tensor], Tensor]:
    return lambda inputs: _again(seen, inputs, "", {})[1]


def _guided(seen: Pass, request: Request, _layer: Layer) -> Tensor:
    return _again(seen, seen.inputs, "", request.guided or {})[1]


def _relevance(seen: Pass, request: Request, layer: Layer) -> Tensor:
    assert request.matrices is not None
    unfused = request.matrices.fused_modules
    output, gradient = _again(seen, seen.inputs, layer.name, request.lrp or {}, unfused)
    return output_to_map(output * gradient, layer)


def _bias_terms(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    terms = [bias[:, None, None] * seen.gradients[n] for n, bias in (request.biases or {}).items()]
    return [term.float() for term in terms if term.shape[2:] != (1, 1)]


def _lrp(model: Model) -> Mapping[str, BackwardRule] | None:
    """Of a model that has matrices: they are asked for first."""
    blocks = tuple(softmax.block_layer.name for softmax in model.attention_modules)
    return rules.attnlrp(model.network, blocks)
