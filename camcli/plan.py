"""What each method will read of a model: layers, head, attention. Knows nothing of batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from camcli import attention, embedded, heads, layers
from camcli.attention import ClassRows
from camcli.errors import LayerError, MethodError
from camcli.heads import Head
from camcli.maps import FUSIONS, Fusion
from camcli.methods import DEFAULTS, METHODS, Method, get
from camcli.models import Model
from camcli.records import Layer


@dataclass(frozen=True, slots=True)
class Request:
    """One method on given layers, with what of the model it reads besides."""

    method: Method
    layers: tuple[Layer, ...]
    fusion: Fusion
    options: Mapping[str, Any]
    head: Head | None = None
    rows: ClassRows | None = None


def plan(
    model: Model,
    methods: Sequence[Method],
    spec: str | None = None,
    block: int | None = None,
    fusion: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Request, ...]:
    """What each method will read. With fusion "none" every layer is a request of its own.

    Without methods it is the first of `DEFAULTS` that the model can have; where layers are named,
    the first that is asked of layers. Raises LayerError and MethodError for what the model does
    not have.
    """
    if not methods:
        return _default(model, spec, block, fusion, options)
    chosen = _layers(model, methods, spec, block)
    groups = [(layer,) for layer in chosen] if fusion == "none" else [chosen]
    rows = _rows(model, [m for m in methods if "attention" in m.needs])
    head = _head(model, [m for m in methods if "semantic" in m.needs])
    requests = []
    for m in methods:
        fusing = FUSIONS[m.fusion if fusion in (None, "none") else fusion]
        given = (options or {}).get(m.name, {})
        if m.per_layer:
            # One layer is shown as it is: scaling serves the comparison with other layers.
            requests += [
                Request(m, group, fusing if len(group) > 1 else FUSIONS["max"], given)
                for group in groups
            ]
        else:
            own = rows if "attention" in m.needs else None
            read = own.blocks if own else (head.layer,) if head else ()
            requests.append(Request(m, read, fusing, given, head, own))
    return tuple(requests)


def default_model(methods: Sequence[Method]) -> str:
    """The embedded network that these methods can work on: a transformer if any needs attention."""
    attentive = any("attention" in m.needs for m in methods)
    return embedded.TSCAM if attentive else embedded.CNN


def _default(model: Model, spec: str | None, block: int | None, *given: Any) -> tuple[Request, ...]:
    layers_named = spec is not None or block is not None
    *first, last = (m for m in map(get, DEFAULTS) if m.per_layer or not layers_named)
    for m in first:
        with suppress(MethodError):
            return plan(model, [m], spec, block, *given)
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


def _layers(
    model: Model, methods: Sequence[Method], spec: str | None, block: int | None
) -> tuple[Layer, ...]:
    if not any(m.per_layer for m in methods):
        if spec is not None or block is not None:
            names = ", ".join(m.name for m in methods)
            raise LayerError(f"{names} reads layers of its own; leave --layers and --block out")
        return ()
    if block is not None:
        return (layers.block(block, model.layers),)
    return layers.resolve(
        "last" if spec is None else spec, model.layers, lambda: default_layer(model)
    )


def default_layer(model: Model) -> Layer:
    """The model's default layer: see `layers.default`."""
    return layers.default(model.network, model.layers, model.size)


def _head(model: Model, needing: Sequence[Method]) -> Head | None:
    head = heads.find(model.network, model.layers, model.size) if needing else None
    if needing and head is None:
        raise MethodError(
            f"{needing[0].name} needs logits that are linear in a map: pooling, then one linear "
            f"layer. {model.name} has none; try {_without('semantic')}"
        )
    return head


def _rows(model: Model, needing: Sequence[Method]) -> ClassRows | None:
    rows = None
    if needing and model.family.attention == "global":
        rows = attention.find(model.network, model.layers, model.size)
    if needing and rows is None:
        has = model.family.attention.replace("global", "attention of another kind")
        raise MethodError(
            f"{needing[0].name} needs attention over all patch tokens; {model.name} has {has}. "
            f"Try {_without('attention')}, or a ViT with --model"
        )
    return rows


def _without(need: str) -> str:
    return ", ".join(name for name, m in METHODS.items() if need not in m.needs)
