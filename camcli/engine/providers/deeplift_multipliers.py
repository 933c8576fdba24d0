"""DeepLIFT's multipliers, as rules for torch's functions.

A pass on the baseline records what goes in and out of every function that is not linear. A second
pass, on the images, replaces the gradient of each of these functions by difference over difference.
Source: https://arxiv.org/abs/1704.02685; maxima are shared as captum does, products as SHAP does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.function_rules import FunctionCall, FunctionRule
    from camcli.models.model import Model

ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "silu", "mish", "gelu"),
    *("hardswish", "softplus", "clamp", "sigmoid", "hardsigmoid", "tanh"),
)
PRODUCTS = ("mul", "imul", "rmul")
SUMS = ("add", "iadd", "sub", "isub")
LINEAR_NODES = (
    *("Convolution", "Addmm", "Mm", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"),
    *("Mean", "Sum", "AvgPool2D", "AdaptiveAvgPool2D", "UpsampleBilinear2D", "UpsampleNearest2D"),
    *("Add", "Sub", "Mul", "Div", "Neg"),
)
# Linear only if all but one of their factors are constants.
BILINEAR_NODES = ("Convolution", "Addmm", "Mm", "Mul", "Div")
SMALLEST_DIFFERENCE = 1e-6  # a smaller one is rounding: the gradient is its limit


@dataclass(frozen=True, slots=True)
class _BaselineCall:
    """What a function that is not linear took and gave in the baseline's pass."""

    name: str
    args: tuple[Any, ...]
    output: Tensor


@dataclass(frozen=True, slots=True)
class RescaleRules:
    """The rules of two passes: one that records the baseline, then one over the images."""

    baseline_calls: deque[_BaselineCall] = field(default_factory=deque)

    def list_recording_rules(self) -> Mapping[str, FunctionRule]:
        """The rules of the baseline's pass."""
        nonlinear = (*ACTIVATIONS, "max_pool2d", *PRODUCTS)
        return {
            **dict.fromkeys(SUMS, run_on_copy),
            **dict.fromkeys(nonlinear, self._record),
        }

    def list_rules(self) -> Mapping[str, FunctionRule]:
        """The rules of the images' pass."""
        return {
            **dict.fromkeys(SUMS, run_on_copy),
            **dict.fromkeys(ACTIVATIONS, self._rescale),
            **dict.fromkeys(PRODUCTS, self._share_product),
            "max_pool2d": self._share_maximum,
        }

    def _record(self, call: FunctionCall) -> Any:
        output = call.run_on_copy()
        self.baseline_calls.append(_BaselineCall(call.name, call.args, output))
        return output

    def _pop(self, call: FunctionCall) -> _BaselineCall:
        """The same call in the baseline's pass, which ran in the same order."""
        from camcli.core.errors import MethodError

        if not self.baseline_calls or self.baseline_calls[0].name != call.name:
            raise MethodError("deeplift: the network computes an image otherwise than a plain one")
        return self.baseline_calls.popleft()

    def _rescale(self, call: FunctionCall) -> Any:
        """m = (f(x) - f(x0)) / (x - x0), or f'(x) where x is x0."""
        import torch

        from camcli.models.introspection.function_rules import replace_gradient

        before = self._pop(call)
        x = call.args[0]
        if not x.requires_grad:
            return call.run_on_copy()

        def share(multiplier: Tensor) -> list[Tensor]:
            with torch.enable_grad():
                source = x.detach().requires_grad_()
                output = call.run(source.clone())
            (slope,) = torch.autograd.grad(output, source, multiplier)
            difference = source.detach() - before.args[0]
            secant = multiplier * (output.detach() - before.output)
            return [_divide(secant, difference, slope)]

        return replace_gradient(call.run_on_copy, share, [x])

    def _share_maximum(self, call: FunctionCall) -> Any:
        """A rise of the maximum belongs to its new place, and a fall to its old one.

        Both in windows that overlap; where the place itself did not change it is the gradient.
        """
        import torch

        from camcli.models.introspection.function_rules import replace_gradient

        before = self._pop(call)
        x = call.args[0]
        if not x.requires_grad:
            return call.run()

        def share(multiplier: Tensor) -> list[Tensor]:
            new, old = x.detach(), before.args[0].expand_as(x)
            output, send_to_new = _differentiate(call, new)
            old_output, send_to_old = _differentiate(call, old)
            top = torch.maximum(output, old_output)
            rise = send_to_new(multiplier * (top - old_output))
            fall = send_to_old(multiplier * (output - top))
            return [_divide(rise + fall, new - old, send_to_new(multiplier))]

        return replace_gradient(call.run, share, [x])

    def _share_product(self, call: FunctionCall) -> Any:
        """Each factor's multiplier is the mean of the other factor and of its baseline."""
        from camcli.models.introspection.function_rules import replace_gradient, requires_gradient

        before = self._pop(call)
        factors = call.args[:2]
        if not all(requires_gradient(factor) for factor in factors):
            return call.run_on_copy()
        means = [(new.detach() + old) / 2 for new, old in zip(factors, before.args, strict=False)]

        def share(multiplier: Tensor) -> list[Tensor]:
            others = zip(factors, reversed(means), strict=True)
            return [(multiplier * mean).sum_to_size(factor.shape) for factor, mean in others]

        return replace_gradient(call.run_on_copy, share, factors)


def run_on_copy(call: FunctionCall) -> Any:
    """Run `x += y` on a copy, because x is needed in the backward pass."""
    return call.run_on_copy()


def _divide(values: Tensor, differences: Tensor, limits: Tensor) -> Tensor:
    is_known = differences.abs() > SMALLEST_DIFFERENCE
    return (values / differences.where(is_known, 1)).where(is_known, limits)


def _differentiate(call: FunctionCall, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A function's output, and how it sends gradients back."""
    import torch

    with torch.enable_grad():
        source = x.requires_grad_()
        output = call.run(source)

    def send_back(gradient: Tensor) -> Tensor:
        return torch.autograd.grad(output, source, gradient, retain_graph=True)[0]

    return output.detach(), send_back


@contextmanager
def use_rescale_rules(network: Any, baseline: Tensor) -> Iterator[None]:
    """Inside the context, the gradient of one forward pass is the multiplier from a baseline."""
    import torch

    from camcli.models.introspection.function_rules import apply_function_rules

    rules = RescaleRules()
    with torch.no_grad(), apply_function_rules(rules.list_recording_rules()):
        network(baseline)
    with apply_function_rules(rules.list_rules()):
        yield


def find_rescale_obstacle(model: Model) -> str | None:
    """The first function of a network that has no rule, or None."""
    import torch

    from camcli.models.introspection.function_rules import MOVING_NODES, find_obstacle
    from camcli.models.introspection.probe import create_probe_image

    image = create_probe_image(model.network, model.input_size)
    rules = use_rescale_rules(model.network, torch.zeros_like(image))
    allowed = (*MOVING_NODES, *LINEAR_NODES)
    return find_obstacle(model.network, image, rules, allowed, BILINEAR_NODES)


# What a network without an obstacle has is nothing to look up: the rules are the same for all.
RESCALE_RULES = ModelPart(
    lambda model: None if find_rescale_obstacle(model) else True,
    lambda model: (
        "a network of convolutions, batch norms, activations, pooling, sums, products and "
        f"concatenation; {model.name} has {find_rescale_obstacle(model)}"
    ),
)


def provide_multipliers(state: PassState, _request: Request, _layer: Layer) -> Tensor:
    """DeepLIFT's multipliers from the mean colour (0) to the inputs: (B,3,H,W)."""
    import torch

    rules = use_rescale_rules(state.network, torch.zeros_like(state.inputs[:1]))
    return state.run_extra_pass(state.inputs, forward_context=rules)[1]


register_provider(
    Provider(
        "multipliers",
        provide_multipliers,
        cost="gradient",
        class_specific=True,
        model_parts=(RESCALE_RULES,),
        list_needs=lambda _request: PassNeeds(batch_norms=True),
    )
)
