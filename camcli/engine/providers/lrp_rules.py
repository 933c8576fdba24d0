"""The rules of layer-wise relevance propagation for layers with weights.

A rule is data: branches of linear parts. A branch adds up its parts to z, and gives each input of a
part its share of R / z. Sources: Bach et al. 2015 (doi 10.1371/journal.pone.0130140) and Montavon
et al. 2019 (doi 10.1007/978-3-030-28954-6_10); for negative inputs the rules are those of zennit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    ApplyLinear = Callable[[Tensor, Tensor, Tensor | None], Tensor]
    LinearPart = tuple[Tensor, Tensor, Tensor | None]

STABILIZER = 1e-6  # of all rules but epsilon, so that nothing is divided by 0

# The rules of a network's first convolution, of other convolutions, and of its linear layers.
COMPOSITES = {
    "epsilon-plus": ("zplus", "zplus", "epsilon"),
    "epsilon-plus-flat": ("flat", "zplus", "epsilon"),
    "epsilon-alpha2-beta1": ("alpha2-beta1", "alpha2-beta1", "epsilon"),
    "epsilon-alpha2-beta1-flat": ("flat", "alpha2-beta1", "epsilon"),
    "epsilon-gamma-box": ("box", "gamma", "epsilon"),
    "epsilon": ("epsilon", "epsilon", "epsilon"),
    "gamma": ("gamma", "gamma", "gamma"),
    "zplus": ("zplus", "zplus", "zplus"),
    "alpha2-beta1": ("alpha2-beta1", "alpha2-beta1", "alpha2-beta1"),
}


@dataclass(frozen=True, slots=True)
class LrpOptions:
    """The composite of rules, and the numbers in them."""

    rule: str = "epsilon-plus"
    gamma: float = 0.25
    epsilon: float = 1e-6


@dataclass(frozen=True, slots=True)
class Branch:
    """Parts (inputs, weight, bias) that share relevance by what each adds to their sum.

    The relevance is multiplied by `factor` first, and by `mask` (0 or 1 at each output).
    """

    parts: Sequence[LinearPart]
    factor: float = 1.0
    mask: Tensor | None = None
    stabilizer: float = STABILIZER


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A linear function of `inputs`, and the rule by which it shares relevance.

    `input_range` are the least and largest value that the inputs may have.
    """

    apply: ApplyLinear
    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    rule: str
    options: LrpOptions
    input_range: tuple[Tensor, Tensor] | None = None

    def share(self, relevance: Tensor) -> Tensor:
        """The relevance of the inputs, from that of the outputs."""
        import torch

        with torch.enable_grad(), torch.autocast(relevance.device.type, enabled=False):
            shares = [self._share_branch(branch, relevance) for branch in RULES[self.rule](self)]
        return torch.stack(shares).sum(dim=0).to(relevance.dtype)

    def _share_branch(self, branch: Branch, relevance: Tensor) -> Tensor:
        import torch

        inputs = [part[0].detach().requires_grad_() for part in branch.parts]
        outputs = [self.apply(x, *part[1:]) for x, part in zip(inputs, branch.parts, strict=True)]
        total = torch.stack([o.detach() for o in outputs]).sum(dim=0)
        handed = branch.factor * relevance.to(total.dtype) / stabilize(total, branch.stabilizer)
        if branch.mask is not None:
            handed = handed * branch.mask
        gradients = torch.autograd.grad(outputs, inputs, [handed] * len(outputs))
        return sum_products(inputs, gradients)

    def split(self, weight: Tensor, bias: Tensor | None, other_weight: Tensor) -> list[LinearPart]:
        """The positive inputs with one weight and the bias, the negative ones with another."""
        x = self.inputs
        parts: list[LinearPart] = [(x.clamp(min=0), weight, bias)]
        return [*parts, (x.clamp(max=0), other_weight, None)] if bool((x < 0).any()) else parts


def sum_products(inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """The sum of input times gradient over all parts."""
    import torch

    pairs = zip(inputs, gradients, strict=True)
    return torch.stack([x.detach() * g for x, g in pairs]).sum(dim=0)


def stabilize(values: Tensor, epsilon: float) -> Tensor:
    """Values further from 0 by epsilon; 0 becomes epsilon."""
    return values.where(values < 0, values + epsilon).where(values >= 0, values - epsilon)


def _clamp_bias(bias: Tensor | None, **limits: Any) -> Tensor | None:
    return None if bias is None else bias.clamp(**limits)


def _share_epsilon(layer: LinearLayer) -> list[Branch]:
    parts = [(layer.inputs, layer.weight, layer.bias)]
    return [Branch(parts, stabilizer=layer.options.epsilon)]


def _share_positive(layer: LinearLayer, factor: float = 1.0) -> Branch:
    weight = layer.weight
    bias = _clamp_bias(layer.bias, min=0)
    return Branch(layer.split(weight.clamp(min=0), bias, weight.clamp(max=0)), factor)


def _share_negative(layer: LinearLayer, factor: float) -> Branch:
    weight = layer.weight
    bias = _clamp_bias(layer.bias, max=0)
    return Branch(layer.split(weight.clamp(max=0), bias, weight.clamp(min=0)), factor)


def _share_gamma(layer: LinearLayer) -> list[Branch]:
    """Strengthen what has the sign of the output: positive parts above 0, negative ones below."""
    import torch

    weight, bias, gamma = layer.weight, layer.bias, layer.options.gamma
    with torch.no_grad():
        output = layer.apply(layer.inputs, weight, bias)
    high, low = weight + gamma * weight.clamp(min=0), weight + gamma * weight.clamp(max=0)
    high_bias = None if bias is None else bias + gamma * bias.clamp(min=0)
    low_bias = None if bias is None else bias + gamma * bias.clamp(max=0)
    return [
        Branch(layer.split(high, high_bias, low), mask=output > 0),
        Branch(layer.split(low, low_bias, high), mask=output < 0),
    ]


def _share_flat(layer: LinearLayer) -> list[Branch]:
    import torch

    return [Branch([(torch.ones_like(layer.inputs), torch.ones_like(layer.weight), None)])]


def _share_box(layer: LinearLayer) -> list[Branch]:
    """x w - low w+ - high w-: how far each input is from the range's end that says least."""
    if layer.input_range is None:
        return _share_flat(layer)
    x, weight = layer.inputs, layer.weight
    low, high = (end.to(x).expand_as(x) for end in layer.input_range)
    parts: list[LinearPart] = [
        (x, weight, None),
        (low, -weight.clamp(min=0), None),
        (high, -weight.clamp(max=0), None),
    ]
    return [Branch(parts)]


RULES: dict[str, Callable[[LinearLayer], list[Branch]]] = {
    "epsilon": _share_epsilon,
    "zplus": lambda layer: [_share_positive(layer)],
    "alpha2-beta1": lambda layer: [_share_positive(layer, 2), _share_negative(layer, -1)],
    "gamma": _share_gamma,
    "flat": _share_flat,
    "box": _share_box,
}
