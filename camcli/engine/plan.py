"""What each method will read of a model: layers, head, attention. Knows nothing of batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from camcli.core.errors import LayerError, MethodError
from camcli.core.maps import sum_channels
from camcli.core.types import Layer
from camcli.engine.fusion import FUSIONS
from camcli.engine.providers.registry import HANDLE_FINDERS, list_handle_names
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.methods._decomposition import eigen
from camcli.methods.registry import DEFAULT_METHODS, METHODS, Method, find_method
from camcli.models.introspection.attention import unsupported_attention_message
from camcli.models.introspection.default_layer import find_default_layer
from camcli.models.introspection.selectors import find_block_layer, parse_layer_spec
from camcli.models.model import Model
from camcli.models.zoo.builtin import BUILTIN_CNN, BUILTIN_TSCAM, BUILTIN_VIT


def plan_requests(
    model: Model,
    methods: Sequence[Method],
    layer_spec: str | None = None,
    block: int | None = None,
    fusion: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    smoothing: Smoothing = NO_SMOOTHING,
) -> tuple[Request, ...]:
    """What each method will read. With fusion "none" every layer is a request of its own.

    Without methods it is the first of `DEFAULTS` that the model can have; where layers are named,
    the first that is asked of layers. Raises LayerError and MethodError for what the model does
    not have.
    """
    if not methods:
        return _plan_default_method(model, layer_spec, block, fusion, options, smoothing)
    _check_layers_apply(methods, layer_spec, block)
    asked = _PlanContext(model, layer_spec, block)
    return tuple(r for m in methods for r in _create_requests(asked, m, fusion, options, smoothing))


def iter_method_plans(
    model: Model, methods: Sequence[Method], layer_spec: str | None, block: int | None, *given: Any
) -> Iterator[tuple[Request, ...] | MethodError]:
    """What each method alone would read, or why it has no place; `given` as `plan` is told it.

    Raises LayerError for layers that are named and are not there.
    """
    asked = _PlanContext(model, layer_spec, block)
    for m in methods:
        try:
            yield _create_requests(asked, m, *given)
        except MethodError as error:
            yield error
        except LayerError as error:
            if layer_spec is not None or block is not None:
                raise
            yield MethodError(str(error))


def _create_requests(
    context: _PlanContext,
    m: Method,
    fusion: str | None,
    options: Mapping[str, Mapping[str, Any]] | None,
    smoothing: Smoothing,
) -> tuple[Request, ...]:
    fusing = FUSIONS[m.fusion if fusion in (None, "none") else fusion]
    besides = {name: context.find_handle(name, m) for name in list_handle_names(m)}
    join = _choose_map_function(m, smoothing, besides)
    given = (options or {}).get(m.name, {})
    chosen = context.choose_layers(m.default_layer) if m.per_layer else ()
    _check_layer_size(m, chosen)
    groups = [(layer,) for layer in chosen] if fusion == "none" and chosen else [chosen]
    # One layer is shown as it is: scaling serves the comparison with other layers.
    return tuple(
        Request(m, g, fusing if len(g) > 1 else FUSIONS["max"], given, join, **besides)
        for g in groups
    )


def _choose_map_function(
    m: Method, smoothing: Smoothing, handles: Mapping[str, Any]
) -> Callable[..., Tensor]:
    if (smoothing.alters_image or smoothing.has_crops) and m.returns == "concepts":
        raise MethodError(
            f"{m.name} finds other concepts in every view: leave --smooth and --fit tencrop out"
        )
    if smoothing.uses_eigen and m.returns != "terms":
        able = ", ".join(name for name, other in METHODS.items() if other.returns == "terms")
        raise MethodError(f"--smooth eigen joins channels; {m.name} has none. It is for {able}")
    if m.returns == "terms":
        return eigen if smoothing.uses_eigen else sum_channels
    if m.returns == "tokens":
        return partial(handles["matrices"].tokens_to_map, summary=not m.class_specific)
    return lambda maps: maps


@dataclass(slots=True)
class _PlanContext:
    """What of one model the methods of a plan read, each thing found out about once."""

    model: Model
    layer_spec: str | None
    block: int | None
    cache: dict[str, Any] = field(default_factory=dict)

    def find_handle(self, name: str, m: Method) -> Any:
        """Something besides layers. Raises MethodError where the model has no such thing."""
        if name not in self.cache:
            self.cache[name] = HANDLE_FINDERS[name].find(self.model)
        if self.cache[name] is None:
            raise MethodError(_missing_handle_message(self.model, m, name))
        return self.cache[name]

    def choose_layers(self, default: str) -> tuple[Layer, ...]:
        """The layers that are named; else the first block, or the last layer that matters."""
        spec = default if self.layer_spec is None and self.block is None else self.layer_spec
        key = f"layers {spec}"
        if key not in self.cache:
            self.cache[key] = _choose_layers(self.model, spec, self.block)
        found: tuple[Layer, ...] = self.cache[key]
        return found


def _choose_layers(model: Model, layer_spec: str | None, block: int | None) -> tuple[Layer, ...]:
    if not model.layers:
        able = ", ".join(
            n for n, m in METHODS.items() if not m.per_layer and not list_handle_names(m)
        )
        height, width = model.input_size
        raise LayerError(
            f"{model.name} has no layer that gives maps at {height}x{width}; "
            f"methods that need none: {able}"
        )
    if block is not None:
        return (find_block_layer(block, model.layers),)
    if layer_spec == "first":
        blocks = [la for la in model.layers if la.block is not None or la.stage is not None]
        return (blocks[0] if blocks else model.layers[0],)
    return parse_layer_spec(
        layer_spec or "last", model.layers, lambda: find_model_default_layer(model)
    )


def _missing_handle_message(model: Model, m: Method, handle_name: str) -> str:
    kind = unsupported_attention_message(model.attention_modules)
    lacking = HANDLE_FINDERS[handle_name].missing_message.format(model=model.name, attention=kind)
    able = [n for n, other in METHODS.items() if not list_handle_names(other)]
    return f"{m.name} needs {lacking}. Try {', '.join(able[:4])}; `camcli methods` lists more"


def _check_layer_size(m: Method, chosen: Sequence[Layer]) -> None:
    for layer in chosen:
        if m.max_positions is not None and math.prod(layer.grid) > m.max_positions:
            raise MethodError(
                f"{m.name}: {layer.name} has {math.prod(layer.grid)} positions, more than "
                f"{m.max_positions}; name a deeper layer"
            )


def _check_layers_apply(
    methods: Sequence[Method], layer_spec: str | None, block: int | None
) -> None:
    if (layer_spec is not None or block is not None) and not any(m.per_layer for m in methods):
        names = ", ".join(m.name for m in methods)
        raise LayerError(f"{names} reads layers of its own; leave --layers and --block out")


def choose_default_model(methods: Sequence[Method]) -> str:
    """The embedded network that these methods can work on: a transformer if any needs attention.

    Methods that follow attention to what is classified want a CLS token that is; of TS-CAM's head,
    which reads the patches, they find next to nothing.
    """
    attentive = [m for m in methods if "CNN" not in m.works_on]
    if not attentive:
        return BUILTIN_CNN
    followed = all(
        "matrices" in list_handle_names(m) and "relevance" not in m.input_names for m in attentive
    )
    return BUILTIN_VIT if followed else BUILTIN_TSCAM


def _plan_default_method(
    model: Model, layer_spec: str | None, block: int | None, *given: Any
) -> tuple[Request, ...]:
    layers_named = layer_spec is not None or block is not None
    *first, last = (m for m in map(find_method, DEFAULT_METHODS) if m.per_layer or not layers_named)
    for m in first:
        with suppress(MethodError):
            found = plan_requests(model, [m], layer_spec, block, *given)
            if all(request.head is None or request.head.kind == "conv" for request in found):
                return found
    return plan_requests(model, [last], layer_spec, block, *given)


def plan_layer_specs(
    model: Model, methods: Sequence[Method], layer_specs: Sequence[str | None], *given: Any
) -> tuple[Request, ...]:
    """The requests of several `--layers`, each once; `given` is what else `plan` is told."""
    found: list[Request] = []
    for number, spec in enumerate(layer_specs):
        # A method that reads layers of its own is found out about once.
        asked = [m for m in methods if m.per_layer] if number else methods
        for request in plan_requests(model, asked, spec, *given):
            same = (request.method, request.layers)
            if same not in [(other.method, other.layers) for other in found]:
                found.append(request)
    return tuple(found)


def find_model_default_layer(model: Model) -> Layer:
    """The model's default layer: see `survey.default`."""
    return find_default_layer(model.network, model.layers, model.input_size)
