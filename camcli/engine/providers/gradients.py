"""Inputs and activations, and how the score depends on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from camcli.engine.providers.base import PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request


def provide_inputs(state: PassState, _request: Request, _layer: Layer) -> Tensor:
    """The network's inputs (B,3,H,W); 0 is the mean colour."""
    return state.inputs.detach()


def provide_input_gradients(state: PassState, _request: Request, _layer: Layer) -> Tensor:
    """The gradient of the score by the inputs: (B,3,H,W)."""
    return state.gradients[""]


def provide_activations(state: PassState, _request: Request, layer: Layer) -> Tensor:
    """A layer's output: (B,C,h,w)."""
    return state.get_activations(layer)


def provide_gradients(state: PassState, _request: Request, layer: Layer) -> Tensor:
    """The gradient of the score by a layer's output: (B,C,h,w)."""
    return state.get_gradients(layer)


def provide_curvature(state: PassState, _request: Request, layer: Layer) -> Tensor:
    """The Hessian of the score by the activations, times the activations: (B,C,h,w).

    A second backward pass computes it: H A is the gradient of g . A with the factor A held fixed.
    """
    import torch

    from camcli.models.introspection.layouts import output_to_map

    output = state.recording.graph_outputs[layer.name]
    (gradient,) = torch.autograd.grad(state.sum_scores(state.logits), output, create_graph=True)
    if not gradient.requires_grad:  # the score is linear in this layer
        return torch.zeros_like(output_to_map(gradient, layer))
    (product,) = torch.autograd.grad(
        gradient, output, output.detach(), retain_graph=True, materialize_grads=True
    )
    return output_to_map(product, layer).float()


def provide_differentiate(
    state: PassState, _request: Request, layer: Layer
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function of other inputs (B,3,H,W): a layer's activations and gradients, (B,C,h,w) each."""
    from camcli.models.introspection.layouts import output_to_map

    def differentiate(inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, gradient = state.run_extra_pass(inputs, layer.name)
        return output_to_map(output, layer), output_to_map(gradient, layer)

    return differentiate


def provide_slope(state: PassState, _request: Request, _layer: Layer) -> Callable[[Tensor], Tensor]:
    """A function of other inputs (B,3,H,W): the gradient of the score by them, (B,3,H,W)."""
    return lambda inputs: state.run_extra_pass(inputs)[1]


def _list_graph_needs(request: Request) -> PassNeeds:
    return PassNeeds(graph_layers=tuple(layer.name for layer in request.layers))


register_provider(Provider("inputs", provide_inputs))
register_provider(
    Provider(
        "input_gradients",
        provide_input_gradients,
        cost="gradient",
        class_specific=True,
        list_needs=lambda _request: PassNeeds(input_graph=True),
    )
)
register_provider(
    Provider(
        "activations",
        provide_activations,
        layer_specific=True,
        list_needs=lambda request: PassNeeds(
            copied_layers=tuple(layer.name for layer in request.layers)
        ),
    )
)
GRADIENTS = register_provider(
    Provider(
        "gradients",
        provide_gradients,
        cost="gradient",
        class_specific=True,
        layer_specific=True,
        list_needs=_list_graph_needs,
    )
)
register_provider(
    Provider(
        "curvature",
        provide_curvature,
        cost="gradient",
        class_specific=True,
        layer_specific=True,
        list_needs=lambda request: _list_graph_needs(request) | PassNeeds(double_backward=True),
    )
)
register_provider(
    Provider(
        "differentiate",
        provide_differentiate,
        cost="N gradients",
        class_specific=True,
        layer_specific=True,
    )
)
register_provider(Provider("slope", provide_slope, cost="N gradients", class_specific=True))
