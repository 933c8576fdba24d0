"""The relevance of layers and pixels: LRP in convolutional networks, AttnLRP in transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from camcli.core.errors import MethodError
from camcli.core.types import PIXELS
from camcli.engine.providers.attention_weights import ATTENTION_MATRICES
from camcli.engine.providers.backward_rules import find_attnlrp_rules
from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.cnn_relevance import (
    create_cnn_rules,
    create_input_range,
    find_cnn_obstacle,
)
from camcli.engine.providers.lrp_rules import LrpOptions
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.hooks import BackwardRule
    from camcli.models.model import Model

AUTO_RULE = "auto"
DEFAULT_RULE = "epsilon-plus"


@dataclass(frozen=True, slots=True)
class _AttnLrp:
    """AttnLRP as backward rules of modules; relevance is activation times gradient."""

    rules: Mapping[str, BackwardRule]
    fused_modules: tuple[Any, ...]

    @property
    def needs(self) -> PassNeeds:
        return PassNeeds(
            fused_modules=self.fused_modules,
            batch_norms=True,
            other_hooked_modules=tuple(self.rules),
        )

    def propagate(self, state: PassState, name: str, options: LrpOptions) -> Tensor:
        if options != LrpOptions(AUTO_RULE):
            raise MethodError(
                "lrp: rule, gamma and epsilon are for convolutional networks; a transformer has "
                "the rules of AttnLRP, so omit these options"
            )
        output, gradient = state.run_extra_pass(state.inputs, name, self.rules, self.fused_modules)
        return output * gradient


@dataclass(frozen=True, slots=True)
class _CnnLrp:
    """LRP as rules of functions; the gradient is relevance, and that of a logit is the logit."""

    input_range: tuple[Tensor, Tensor]

    @property
    def needs(self) -> PassNeeds:
        return PassNeeds(batch_norms=True)

    def propagate(self, state: PassState, name: str, options: LrpOptions) -> Tensor:
        chosen = replace(options, rule=DEFAULT_RULE) if options.rule == AUTO_RULE else options
        seeded = replace(state, logit_weights=state.logit_weights * state.logits.detach())
        rules = create_cnn_rules(chosen, self.input_range)
        return seeded.run_extra_pass(state.inputs, name, forward_context=rules)[1]


def _find_relevance_rules(model: Model) -> _AttnLrp | _CnnLrp | None:
    if not model.attention_modules:
        return None if find_cnn_obstacle(model) else _CnnLrp(create_input_range(model))
    matrices, rules = ATTENTION_MATRICES.find(model), find_attnlrp_rules(model)
    if matrices is None or rules is None:
        return None
    return _AttnLrp(rules, matrices.fused_modules)


def _describe_missing_rules(model: Model) -> str:
    if not model.attention_modules:
        return (
            "a network of convolutions, batch norms, activations, pooling, sums, concatenation and "
            f"gates; {model.name} has {find_cnn_obstacle(model)}"
        )
    if ATTENTION_MATRICES.find(model) is None:
        return ATTENTION_MATRICES.describe_missing(model)
    return f"a ViT of plain attention, LayerNorm and GELU; {model.name} has other parts"


RELEVANCE_RULES: ModelPart[_AttnLrp | _CnnLrp] = ModelPart(
    _find_relevance_rules, _describe_missing_rules
)


def provide_propagate(
    state: PassState, request: Request, layer: Layer
) -> Callable[[str, float, float], Tensor]:
    """A function of rule, gamma and epsilon: the relevance of a layer's output (B,C,h,w)."""
    from camcli.models.introspection.layouts import output_to_map

    rules = request.get_part(RELEVANCE_RULES)
    name = "" if layer.name == PIXELS else layer.name

    def propagate(rule: str, gamma: float, epsilon: float) -> Tensor:
        options = LrpOptions(rule, gamma, epsilon)
        return output_to_map(rules.propagate(state, name, options), layer)

    return propagate


def provide_relevance(state: PassState, request: Request, layer: Layer) -> Tensor:
    """The relevance of a layer's output, by the usual rules: (B,C,h,w)."""
    usual = LrpOptions(AUTO_RULE)
    return provide_propagate(state, request, layer)(usual.rule, usual.gamma, usual.epsilon)


for _name, _compute in (("propagate", provide_propagate), ("relevance", provide_relevance)):
    register_provider(
        Provider(
            _name,
            _compute,
            cost="gradient",
            class_specific=True,
            layer_specific=True,
            model_parts=(RELEVANCE_RULES,),
            list_needs=lambda request: request.get_part(RELEVANCE_RULES).needs,
        )
    )
