"""Requests from methods: which layers and which parts of a model each method reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from torch import Tensor

from camcli.core.errors import LayerError, MethodError
from camcli.core.maps import sum_channels
from camcli.core.types import Layer
from camcli.engine.fusion import FUSIONS
from camcli.engine.providers.attention_weights import ATTENTION_MATRICES
from camcli.engine.providers.base import ModelPart
from camcli.engine.providers.provider_registry import list_model_parts, list_providers
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.methods._decomposition import eigen
from camcli.methods.registry import (
    DEFAULT_CLASS_BLIND_METHODS,
    DEFAULT_METHODS,
    METHODS,
    Method,
    find_method,
)
from camcli.models.introspection.default_layer import find_default_layer
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.models.introspection.selectors import find_block_layer, parse_layer_spec
from camcli.models.model import Model
from camcli.models.zoo.builtin_networks import BUILTIN_CNN, BUILTIN_TSCAM, BUILTIN_VIT


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The choices of the user besides methods, which are the same for all methods.

    `layer_spec` and `block` choose layers; at most one of them is given. `fusion` replaces each
    method's own; "none" makes a request of every layer. `options` holds the options of methods, by
    method name.
    """

    layer_spec: str | None = None
    block: int | None = None
    fusion: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    smoothing: Smoothing = NO_SMOOTHING

    @property
    def names_layers(self) -> bool:
        """Whether the user chose layers."""
        return self.layer_spec is not None or self.block is not None


@allow_gradients()
def plan_requests(
    model: Model,
    methods: Sequence[Method],
    layer_spec: str | None = None,
    block: int | None = None,
    fusion: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    smoothing: Smoothing = NO_SMOOTHING,
) -> tuple[Request, ...]:
    """The requests of some methods; the other arguments are the fields of `PlanOptions`.

    Without methods it is the first of `DEFAULT_METHODS` that suits the model; if the user chose
    layers, the first of these that explains chosen layers. Raises LayerError or MethodError if the
    model lacks what a method needs.
    """
    plan_options = PlanOptions(
        layer_spec=layer_spec,
        block=block,
        fusion=fusion,
        options=options or {},
        smoothing=smoothing,
    )
    return _plan_methods(model, methods, plan_options)


@allow_gradients()
def plan_layer_specs(
    model: Model,
    methods: Sequence[Method],
    layer_specs: Sequence[str | None],
    plan_options: PlanOptions,
) -> tuple[Request, ...]:
    """The requests for several `--layers`, each only once."""
    requests: list[Request] = []
    for number, spec in enumerate(layer_specs):
        # Methods that choose their layers by themselves need one plan only.
        planned = [m for m in methods if m.per_layer] if number else methods
        for request in _plan_methods(model, planned, replace(plan_options, layer_spec=spec)):
            same = (request.method, request.layers)
            if same not in [(other.method, other.layers) for other in requests]:
                requests.append(request)
    return tuple(requests)


def iter_method_plans(
    model: Model, methods: Sequence[Method], plan_options: PlanOptions
) -> Iterator[tuple[Request, ...] | MethodError]:
    """Yield the requests of each method alone, or the error that says why it does not suit.

    Raises LayerError if the user chose layers that the model does not have.
    """
    planner = _Planner(model, plan_options)
    for method in methods:
        try:
            yield planner.create_requests(method)
        except MethodError as error:
            yield error
        except LayerError as error:
            if plan_options.names_layers:
                raise
            yield MethodError(str(error))


def _plan_methods(
    model: Model, methods: Sequence[Method], plan_options: PlanOptions
) -> tuple[Request, ...]:
    if not methods:
        return _plan_default_method(model, plan_options)
    if plan_options.names_layers and not any(m.per_layer for m in methods):
        names = ", ".join(m.name for m in methods)
        raise LayerError(f"--layers and --block have no effect on {names}; omit them")
    planner = _Planner(model, plan_options)
    return tuple(request for m in methods for request in planner.create_requests(m))


def _plan_default_method(model: Model, plan_options: PlanOptions) -> tuple[Request, ...]:
    named = plan_options.names_layers
    has_classes = model.output_kind != "embedding"
    names = DEFAULT_METHODS if has_classes else DEFAULT_CLASS_BLIND_METHODS
    *first, last = (m for m in map(find_method, names) if m.per_layer or not named)
    for method in first:
        with suppress(MethodError):
            requests = _plan_methods(model, [method], plan_options)
            if all(request.head is None or request.head.kind == "conv" for request in requests):
                return requests
    return _plan_methods(model, [last], plan_options)


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans methods for one model; each part of the model is looked for once."""

    model: Model
    plan_options: PlanOptions
    found_parts: dict[ModelPart[Any], Any] = field(default_factory=dict)
    found_layers: dict[str | None, tuple[Layer, ...]] = field(default_factory=dict)

    def create_requests(self, method: Method) -> tuple[Request, ...]:
        """One request for all layers, or with fusion "none" one for each."""
        chosen = self.plan_options
        self._check_has_target(method)
        parts = {part: self._find_part(part, method) for part in list_model_parts(method)}
        to_map = _choose_map_function(method, chosen.smoothing, parts)
        layers = self._choose_layers(method.default_layer) if method.per_layer else ()
        _check_layer_sizes(method, layers)
        groups = [(layer,) for layer in layers] if chosen.fusion == "none" else [layers]
        return tuple(
            Request(
                method=method,
                layers=group,
                # One layer is shown as it is: scaling serves the comparison with other layers.
                fusion=FUSIONS[(chosen.fusion or method.fusion) if len(group) > 1 else "max"],
                options=chosen.options.get(method.name, {}),
                to_map=to_map,
                model_parts=parts,
            )
            for group in groups or [()]
        )

    def _check_has_target(self, method: Method) -> None:
        if method.class_specific and self.model.output_kind == "embedding":
            blind = [name for name, other in METHODS.items() if not other.class_specific]
            raise MethodError(
                f"{method.name} explains a class, and {self.model.name} has no classes: write "
                f"--target like:REFERENCE.jpg, or choose a method that needs no class: "
                f"{', '.join(blind)}"
            )

    def _find_part(self, part: ModelPart[Any], method: Method) -> Any:
        if part not in self.found_parts:
            self.found_parts[part] = part.find(self.model)
        if self.found_parts[part] is None:
            others = [name for name, other in METHODS.items() if not list_model_parts(other)]
            raise MethodError(
                f"{method.name} needs {part.describe_missing(self.model)}. "
                f"Try {', '.join(others[:4])}; `camcli methods` lists more"
            )
        return self.found_parts[part]

    def _choose_layers(self, default: str) -> tuple[Layer, ...]:
        """The layers that the user chose; otherwise those of the method's default."""
        chosen = self.plan_options
        spec = chosen.layer_spec if chosen.names_layers else default
        if spec not in self.found_layers:
            self.found_layers[spec] = _find_layers(self.model, spec, chosen.block)
        return self.found_layers[spec]


def _find_layers(model: Model, layer_spec: str | None, block: int | None) -> tuple[Layer, ...]:
    """The layers that a specification names; "first" is the first block or stage."""
    if not model.layers:
        others = [n for n, m in METHODS.items() if not m.per_layer and not list_model_parts(m)]
        height, width = model.input_size
        raise LayerError(
            f"{model.name} has no layer that gives maps at {height}x{width}; "
            f"these methods need no layer: {', '.join(others)}"
        )
    if block is not None:
        return (find_block_layer(block, model.layers),)
    if layer_spec == "first":
        numbered = (la for la in model.layers if la.block is not None or la.stage is not None)
        return (next(numbered, model.layers[0]),)
    return parse_layer_spec(
        layer_spec or "last", model.layers, lambda: find_model_default_layer(model)
    )


def _check_layer_sizes(method: Method, layers: Sequence[Layer]) -> None:
    for layer in layers:
        positions = math.prod(layer.grid)
        if method.max_positions is not None and positions > method.max_positions:
            raise MethodError(
                f"{method.name}: {layer.name} has {positions} positions, but the limit "
                f"is {method.max_positions}; choose a deeper layer"
            )


def _choose_map_function(
    method: Method, smoothing: Smoothing, model_parts: Mapping[ModelPart[Any], Any]
) -> Callable[..., Tensor]:
    """The function that makes one map (B,H,W) from what the method returns."""
    if (smoothing.alters_image or smoothing.has_crops) and method.returns == "concepts":
        raise MethodError(
            f"{method.name} would find different concepts in each view; "
            "omit --smooth and --fit tencrop"
        )
    if smoothing.uses_eigen and method.returns != "terms":
        able = ", ".join(name for name, other in METHODS.items() if other.returns == "terms")
        raise MethodError(
            f"--smooth eigen joins channels, but {method.name} has no channels; use it with {able}"
        )
    if method.returns == "terms":
        return eigen if smoothing.uses_eigen else sum_channels
    if method.returns == "tokens":
        if ATTENTION_MATRICES not in model_parts:
            raise MethodError(f"{method.name} returns tokens, but asks for no attention matrices")
        matrices = model_parts[ATTENTION_MATRICES]
        return partial(matrices.tokens_to_map, summary=not method.class_specific)
    return lambda maps: maps


def choose_default_model(methods: Sequence[Method]) -> str:
    """The name of the embedded network that suits all these methods.

    It is a transformer if any method needs attention. If all of these follow attention to the CLS
    token, the transformer is the one that classifies by that token; TS-CAM's head reads the patches
    instead.
    """
    attentive = [m for m in methods if "CNN" not in m.works_on]
    if not attentive:
        return BUILTIN_CNN
    return BUILTIN_VIT if all(map(_reads_cls, attentive)) else BUILTIN_TSCAM


def _reads_cls(method: Method) -> bool:
    return any(provider.reads_cls for provider in list_providers(method))


def find_model_default_layer(model: Model) -> Layer:
    """The layer that is explained if the user names none: see `find_default_layer`."""
    return find_default_layer(model.network, model.layers, model.input_size)
