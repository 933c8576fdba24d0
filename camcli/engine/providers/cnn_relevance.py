"""Layer-wise relevance propagation through convolutional networks, as rules for torch's functions.

The gradient at a tensor is its relevance. Functions that only move values need no rule: their
gradient moves relevance back. Maxima pass it to the largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from camcli.engine.providers.colors import compute_color_range
from camcli.engine.providers.lrp_rules import (
    COMPOSITES,
    STABILIZER,
    LinearLayer,
    LrpOptions,
    stabilize,
)

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.models.introspection.function_rules import FunctionCall, FunctionRule
    from camcli.models.model import Model

ACTIVATIONS = (
    *("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "elu", "selu", "celu", "silu", "mish"),
    *("gelu", "hardswish", "softplus", "clamp", "sigmoid", "hardsigmoid", "tanh"),
)
GATES = ("sigmoid", "hardsigmoid", "softmax", "tanh")
WEIGHTED = ("conv2d", "linear")
MEANS = ("avg_pool2d", "adaptive_avg_pool2d", "mean", "sum", "interpolate")


@dataclass(frozen=True, slots=True)
class CnnRules:
    """The rules of one forward pass.

    `origins` has, for the output of a convolution or linear layer, that layer; a batch norm that
    follows is merged into it. `gates` are the outputs of functions that compute weights.
    """

    options: LrpOptions
    input_range: tuple[Tensor, Tensor]
    origins: Any
    gates: Any
    convolution_count: list[None] = field(default_factory=list)

    def list_rules(self) -> Mapping[str, FunctionRule]:
        """The rules by the name of the function."""
        return {
            **dict.fromkeys(ACTIVATIONS, self.pass_activation),
            **dict.fromkeys(MEANS, share_mean),
            **dict.fromkeys(("add", "iadd", "radd"), partial(share_sum, sign=1)),
            **dict.fromkeys(("sub", "isub"), partial(share_sum, sign=-1)),
            **dict.fromkeys(("mul", "imul", "rmul", "div", "truediv"), self.pass_product),
            **dict.fromkeys(("neg", "dropout"), pass_on),
            **dict.fromkeys(WEIGHTED, self.share_weighted),
            "batch_norm": self.merge_batch_norm,
        }

    def pass_activation(self, call: FunctionCall) -> Any:
        """An activation gives its relevance to its input."""
        output = pass_on(call)
        if call.name in GATES:
            self.gates[output] = True
        return output

    def pass_product(self, call: FunctionCall) -> Any:
        """Factors that do not depend on the input, and gates, count as constants."""
        factors = call.args[:2]
        kept = [n for n, factor in enumerate(factors) if _is_in_graph(factor)]
        if len(kept) == 2 and call.name.endswith("mul"):
            kept = [n for n in kept if not self._is_gate(factors[n], factors[1 - n])]
        if len(kept) != 1 or (call.name.endswith("div") and kept != [0]):
            return call.run()
        return _pass(lambda: call.run(*_copy_first(factors)), factors[kept[0]])

    def _is_gate(self, factor: Tensor, other: Tensor) -> bool:
        """Whether a factor is one number for many, or the output of a sigmoid."""
        return factor.numel() < other.numel() or (factor in self.gates and other not in self.gates)

    def share_weighted(self, call: FunctionCall) -> Any:
        """A convolution or linear layer shares relevance by its rule."""
        x, weight, *others = call.args
        first, convolution, linear = COMPOSITES[self.options.rule]
        rule = linear if call.name == "linear" else convolution
        if call.name == "conv2d" and not self.convolution_count:
            self.convolution_count.append(None)
            rule = first
        kwargs = dict(call.kwargs)
        bias = others.pop(0) if others else kwargs.pop("bias", None)
        if not _is_in_graph(x) or _is_in_graph(weight):
            return call.run()
        layer = LinearLayer(
            apply=lambda x, weight, bias: call.function(x, weight, bias, *others, **kwargs),
            inputs=x.detach().to(_find_precise_type(x)),
            weight=weight.detach().to(_find_precise_type(weight)),
            bias=None if bias is None else bias.detach().to(_find_precise_type(bias)),
            rule=rule,
            options=self.options,
            input_range=self.input_range,
        )
        return self._share(call.run, layer, x)

    def merge_batch_norm(self, call: FunctionCall) -> Any:
        """A batch norm becomes part of the layer before; elsewhere it passes relevance on."""
        x, mean, variance, weight, bias, *others = _read_batch_norm(call)
        if any(others) or mean is None or not _is_in_graph(x):  # `others` says it is training
            return call.run()
        if x not in self.origins:
            return pass_on(call)
        layer, source = self.origins[x]
        scale = (variance + (_find_epsilon(call))).rsqrt() * (1 if weight is None else weight)
        shift = (0 if layer.bias is None else layer.bias) - mean
        merged = replace(
            layer,
            weight=layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1)),
            bias=shift * scale + (0 if bias is None else bias),
        )
        return self._share(call.run, merged, source)

    def _share(self, compute: Callable[[], Tensor], layer: LinearLayer, source: Tensor) -> Tensor:
        from camcli.models.introspection.function_rules import replace_gradient

        output = replace_gradient(compute, lambda r: [layer.share(r).to(source.dtype)], [source])
        self.origins[output] = layer, source
        return output


def share_sum(call: FunctionCall, sign: int) -> Any:
    """A summand gets relevance by its share of the sum; what is constant keeps its own."""
    from camcli.models.introspection.function_rules import replace_gradient

    summands = dict(enumerate(call.args[:2]))
    inputs = {n: x for n, x in summands.items() if _is_in_graph(x)}
    if not inputs or call.kwargs:
        return call.run()

    def share(relevance: Tensor) -> list[Tensor]:
        parts = {n: _to_precise(x) * (sign if n else 1) for n, x in summands.items()}
        handed = relevance / stabilize(parts[0] + parts[1], STABILIZER)
        return [
            (parts[n] * handed).sum_to_size(x.shape).to(relevance.dtype) for n, x in inputs.items()
        ]

    return replace_gradient(
        lambda: call.run(*_copy_first(call.args[:2])), share, [*inputs.values()]
    )


def share_mean(call: FunctionCall) -> Any:
    """A mean gives each input its share, as a linear layer of equal weights."""
    import torch

    from camcli.models.introspection.function_rules import replace_gradient

    x = call.args[0]
    if not _is_in_graph(x):
        return call.run()

    def share(relevance: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            source = _to_precise(x).requires_grad_()
            mean = call.run(source)
        handed = relevance.to(mean.dtype) / stabilize(mean.detach(), STABILIZER)
        (gradient,) = torch.autograd.grad(mean, source, handed)
        return [(source.detach() * gradient).to(x.dtype)]

    return replace_gradient(call.run, share, [x])


def pass_on(call: FunctionCall) -> Any:
    """Each output value gives its relevance to the one input value that it comes from."""
    x = call.args[0]
    return _pass(call.run_on_copy, x) if _is_in_graph(x) else call.run()


def _pass(compute: Callable[[], Tensor], source: Tensor) -> Tensor:
    from camcli.models.introspection.function_rules import replace_gradient

    return replace_gradient(compute, lambda r: [r.sum_to_size(source.shape)], [source])


def _is_in_graph(value: Any) -> bool:
    return bool(getattr(value, "requires_grad", False))


def _copy_first(factors: Sequence[Any]) -> list[Any]:
    """A copy of the first: `x += y` changes x, which other functions may read."""
    first, *others = factors
    return [first.clone() if hasattr(first, "clone") else first, *others]


def _to_precise(value: Any) -> Any:
    """A tensor in at least single precision, without its graph; a number stays as it is."""
    return value.detach().to(_find_precise_type(value)) if hasattr(value, "detach") else value


def _find_precise_type(tensor: Tensor) -> Any:
    import torch

    return torch.promote_types(tensor.dtype, torch.float32)


def _read_batch_norm(call: FunctionCall) -> tuple[Any, ...]:
    """Inputs, mean, variance, weight, bias, and whether the norm is training."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training")
    given = dict(zip((*names, "momentum", "eps"), call.args, strict=False)) | dict(call.kwargs)
    return tuple(given.get(name) for name in names)


def _find_epsilon(call: FunctionCall) -> float:
    return float(call.kwargs.get("eps", call.args[7] if len(call.args) > 7 else 1e-5))


def create_cnn_rules(
    options: LrpOptions, input_range: tuple[Tensor, Tensor]
) -> AbstractContextManager[None]:
    """A context in which the gradients of a forward pass are relevance; for one pass only."""
    from torch.utils.weak import WeakTensorKeyDictionary

    from camcli.models.introspection.function_rules import apply_function_rules

    rules = CnnRules(options, input_range, WeakTensorKeyDictionary(), WeakTensorKeyDictionary())
    return apply_function_rules(rules.list_rules())


def find_cnn_obstacle(model: Model) -> str | None:
    """The first function of a network that has no rule, or None."""
    from camcli.models.introspection.function_rules import (
        MAX_POOLING_NODES,
        MOVING_NODES,
        find_obstacle,
    )
    from camcli.models.introspection.probe import create_probe_image

    image = create_probe_image(model.network, model.input_size)
    rules = create_cnn_rules(LrpOptions(), create_input_range(model))
    return find_obstacle(model.network, image, rules, (*MOVING_NODES, *MAX_POOLING_NODES))


def create_input_range(model: Model) -> tuple[Tensor, Tensor]:
    """The network's inputs for black and for white: (1,C,1,1) each."""
    black, white = compute_color_range(model.transform).to(model.device)
    return black[None], white[None]
