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
from camcli.models.introspection.attention import unfuse
from camcli.models.introspection.hooks import Rule, record, rewired, slopes
from camcli.models.introspection.layers import spatial
from camcli.models.model import Model


def _layer_names(request: Request) -> Iterable[str]:
    return [layer.name for layer in request.layers]


def _activations(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    return spatial(seen.recorded.output(layer.name), layer).detach().float()


def _gradients(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    return spatial(seen.gradients[layer.name], layer).float()


def _curvature(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    """H A by a second backward pass: the gradient of g . A with A held fixed in the product."""
    tap = seen.recorded.taps[layer.name]
    (slope,) = torch.autograd.grad(seen.summed(seen.logits), tap, create_graph=True)
    if not slope.requires_grad:  # the score is linear in this layer
        return torch.zeros_like(spatial(slope, layer))
    (found,) = torch.autograd.grad(
        slope, tap, tap.detach(), retain_graph=True, materialize_grads=True
    )
    return spatial(found, layer).float()


def _again(
    seen: Pass, inputs: Tensor, tap: str, rules: Mapping[str, Rule], unfused: Iterable[Any] = ()
) -> tuple[Tensor, Tensor]:
    """Another forward and backward pass: a layer's output, or the input's own, and its gradient."""
    with ExitStack() as stack:
        stack.enter_context(unfuse(tuple(unfused)))
        stack.enter_context(rewired(seen.network, rules))
        taps = [tap] if tap else []
        recorded = stack.enter_context(record(seen.network, taps, graph=True))
        source = inputs.detach().requires_grad_(not tap)
        score = seen.summed(seen.network(source))
        output = recorded.taps[tap] if tap else source
        (gradient,) = slopes(score, [output])
    return output.detach().float(), gradient.float()


def _differentiate(
    seen: Pass, _request: Request, layer: Layer
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def at(inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, gradient = _again(seen, inputs, layer.name, {})
        return spatial(output, layer), spatial(gradient, layer)

    return at


def _slope(seen: Pass, _request: Request, _layer: Layer) -> Callable[[Tensor], Tensor]:
    return lambda inputs: _again(seen, inputs, "", {})[1]


def _guided(seen: Pass, request: Request, _layer: Layer) -> Tensor:
    return _again(seen, seen.inputs, "", request.guided or {})[1]


def _relevance(seen: Pass, request: Request, layer: Layer) -> Tensor:
    assert request.matrices is not None
    unfused = request.matrices.unfused
    output, gradient = _again(seen, seen.inputs, layer.name, request.lrp or {}, unfused)
    return spatial(output * gradient, layer)


def _bias_terms(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    terms = [bias[:, None, None] * seen.gradients[n] for n, bias in (request.biases or {}).items()]
    return [term.float() for term in terms if term.shape[2:] != (1, 1)]


def _lrp(model: Model) -> Mapping[str, Rule] | None:
    """Of a model that has matrices: they are asked for first."""
    blocks = tuple(softmax.block.name for softmax in model.attention)
    return rules.attnlrp(model.network, blocks)
