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
from camcli.core.maps import summed
from camcli.core.types import Layer
from camcli.engine.fusion import FUSIONS
from camcli.engine.providers.registry import FINDERS, _fields
from camcli.engine.request import Request
from camcli.engine.smoothing import NONE, Smoothing
from camcli.methods._decomposition import eigen
from camcli.methods.registry import DEFAULT_METHODS, METHODS, Method, find_method
from camcli.models.introspection import attention
from camcli.models.introspection import layers as survey
from camcli.models.introspection import selectors as layers
from camcli.models.model import Model
from camcli.models.zoo import builtin as embedded


def plan(
    model: Model,
    methods: Sequence[Method],
    spec: str | None = None,
    block: int | None = None,
    fusion: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    smoothing: Smoothing = NONE,
) -> tuple[Request, ...]:
    """What each method will read. With fusion "none" every layer is a request of its own.

    Without methods it is the first of `DEFAULTS` that the model can have; where layers are named,
    the first that is asked of layers. Raises LayerError and MethodError for what the model does
    not have.
    """
    if not methods:
        return _default(model, spec, block, fusion, options, smoothing)
    _refuse_layers(methods, spec, block)
    asked = _Asked(model, spec, block)
    return tuple(r for m in methods for r in _requests(asked, m, fusion, options, smoothing))


def separately(
    model: Model, methods: Sequence[Method], spec: str | None, block: int | None, *given: Any
) -> Iterator[tuple[Request, ...] | MethodError]:
    """What each method alone would read, or why it has no place; `given` as `plan` is told it.

    Raises LayerError for layers that are named and are not there.
    """
    asked = _Asked(model, spec, block)
    for m in methods:
        try:
            yield _requests(asked, m, *given)
        except MethodError as error:
            yield error
        except LayerError as error:
            if spec is not None or block is not None:
                raise
            yield MethodError(str(error))


def _requests(
    asked: _Asked,
    m: Method,
    fusion: str | None,
    options: Mapping[str, Mapping[str, Any]] | None,
    smoothing: Smoothing,
) -> tuple[Request, ...]:
    fusing = FUSIONS[m.fusion if fusion in (None, "none") else fusion]
    besides = {name: asked.of(name, m) for name in _fields(m)}
    join = _join(m, smoothing, besides)
    given = (options or {}).get(m.name, {})
    chosen = asked.layers(m.default_layer) if m.per_layer else ()
    _refuse_large(m, chosen)
    groups = [(layer,) for layer in chosen] if fusion == "none" and chosen else [chosen]
    # One layer is shown as it is: scaling serves the comparison with other layers.
    return tuple(
        Request(m, g, fusing if len(g) > 1 else FUSIONS["max"], given, join, **besides)
        for g in groups
    )


def _join(m: Method, smoothing: Smoothing, besides: Mapping[str, Any]) -> Callable[..., Tensor]:
    if (smoothing.moves or smoothing.cropped) and m.returns == "concepts":
        raise MethodError(
            f"{m.name} finds other concepts in every view: leave --smooth and --fit tencrop out"
        )
    if smoothing.eigen and m.returns != "terms":
        able = ", ".join(name for name, other in METHODS.items() if other.returns == "terms")
        raise MethodError(f"--smooth eigen joins channels; {m.name} has none. It is for {able}")
    if m.returns == "terms":
        return eigen if smoothing.eigen else summed
    if m.returns == "tokens":
        return partial(besides["matrices"].tokens_to_map, summary=not m.class_specific)
    return lambda maps: maps


@dataclass(slots=True)
class _Asked:
    """What of one model the methods of a plan read, each thing found out about once."""

    model: Model
    spec: str | None
    block: int | None
    known: dict[str, Any] = field(default_factory=dict)

    def of(self, name: str, m: Method) -> Any:
        """Something besides layers. Raises MethodError where the model has no such thing."""
        if name not in self.known:
            self.known[name] = FINDERS[name].find(self.model)
        if self.known[name] is None:
            raise MethodError(_refusal(self.model, m, name))
        return self.known[name]

    def layers(self, default: str) -> tuple[Layer, ...]:
        """The layers that are named; else the first block, or the last layer that matters."""
        spec = default if self.spec is None and self.block is None else self.spec
        key = f"layers {spec}"
        if key not in self.known:
            self.known[key] = _layers(self.model, spec, self.block)
        found: tuple[Layer, ...] = self.known[key]
        return found


def _layers(model: Model, spec: str | None, block: int | None) -> tuple[Layer, ...]:
    if not model.layers:
        able = ", ".join(n for n, m in METHODS.items() if not m.per_layer and not _fields(m))
        height, width = model.input_size
        raise LayerError(
            f"{model.name} has no layer that gives maps at {height}x{width}; "
            f"methods that need none: {able}"
        )
    if block is not None:
        return (layers.find_block_layer(block, model.layers),)
    if spec == "first":
        blocks = [la for la in model.layers if la.block is not None or la.stage is not None]
        return (blocks[0] if blocks else model.layers[0],)
    return layers.parse_layer_spec(spec or "last", model.layers, lambda: default_layer(model))


def _refusal(model: Model, m: Method, name: str) -> str:
    kind = attention.unsupported_attention_message(model.attention_modules)
    lacking = FINDERS[name].lacking.format(model=model.name, attention=kind)
    able = [n for n, other in METHODS.items() if not _fields(other)]
    return f"{m.name} needs {lacking}. Try {', '.join(able[:4])}; `camcli methods` lists more"


def _refuse_large(m: Method, chosen: Sequence[Layer]) -> None:
    for layer in chosen:
        if m.max_positions is not None and math.prod(layer.grid) > m.max_positions:
            raise MethodError(
                f"{m.name}: {layer.name} has {math.prod(layer.grid)} positions, more than "
                f"{m.max_positions}; name a deeper layer"
            )


def _refuse_layers(methods: Sequence[Method], spec: str | None, block: int | None) -> None:
    if (spec is not None or block is not None) and not any(m.per_layer for m in methods):
        names = ", ".join(m.name for m in methods)
        raise LayerError(f"{names} reads layers of its own; leave --layers and --block out")


def default_model(methods: Sequence[Method]) -> str:
    """The embedded network that these methods can work on: a transformer if any needs attention.

    Methods that follow attention to what is classified want a CLS token that is; of TS-CAM's head,
    which reads the patches, they find next to nothing.
    """
    attentive = [m for m in methods if "CNN" not in m.works_on]
    if not attentive:
        return embedded.BUILTIN_CNN
    followed = all("matrices" in _fields(m) and "relevance" not in m.input_names for m in attentive)
    return embedded.BUILTIN_VIT if followed else embedded.BUILTIN_TSCAM


def _default(model: Model, spec: str | None, block: int | None, *given: Any) -> tuple[Request, ...]:
    layers_named = spec is not None or block is not None
    *first, last = (m for m in map(find_method, DEFAULT_METHODS) if m.per_layer or not layers_named)
    for m in first:
        with suppress(MethodError):
            found = plan(model, [m], spec, block, *given)
            if all(request.head is None or request.head.kind == "conv" for request in found):
                return found
    return plan(model, [last], spec, block, *given)


def several(
    model: Model, methods: Sequence[Method], specs: Sequence[str | None], *given: Any
) -> tuple[Request, ...]:
    """The requests of several `--layers`, each once; `given` is what else `plan` is told."""
    found: list[Request] = []
    for number, spec in enumerate(specs):
        # A method that reads layers of its own is found out about once.
        asked = [m for m in methods if m.per_layer] if number else methods
        for request in plan(model, asked, spec, *given):
            same = (request.method, request.layers)
            if same not in [(other.method, other.layers) for other in found]:
                found.append(request)
    return tuple(found)


def default_layer(model: Model) -> Layer:
    """The model's default layer: see `survey.default`."""
    return survey.find_default_layer(model.network, model.layers, model.input_size)
