"""A model's layers where they lie, as `camcli layers --tree` draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from camcli.cli import console
from camcli.core.errors import one_line

if TYPE_CHECKING:
    from camcli.core.types import Layer
    from camcli.models.model import Model


def draw(model: Model, default: Layer | None) -> None:
    """Every layer under the modules that hold it, then what each method can be asked of."""
    from camcli.engine import compatibility as suited

    live = suited.alive(model)
    rows, told = model.layers, ""
    order = _order(rows)
    # A parent stands before what it holds, though it is finished after it.
    for layer in sorted(rows, key=lambda la: [order[name] for name in _path(la)]):
        depth, label = _branch(layer.name, told)
        told = layer.module
        for line in label:
            console.emit(line)
        console.emit(_leaf(layer, depth, live, default))
    for line in _methods(model, len(live), len(rows)):
        console.emit(line)
    console.say(f"{model.name} at {model.input_size[0]}x{model.input_size[1]}: {len(rows)} layers")


def _order(layers: Sequence[Layer]) -> dict[str, int]:
    """When the first layer of each module, in it or itself, is finished."""
    order: dict[str, int] = {}
    for number, layer in enumerate(layers):
        for name in _path(layer):
            order.setdefault(name, number)
    return order


def _path(layer: Layer) -> list[str]:
    """A layer's name, and before it those of the modules that hold it."""
    from camcli.models.introspection.hooks import list_parent_names

    return [*list_parent_names(layer.module), layer.module]


def _branch(name: str, before: str) -> tuple[int, list[str]]:
    """How deep a layer lies, and the modules that hold it and are no layers themselves."""
    parts, told = name.split("."), before.split(".")
    shared = next(
        (n for n, (a, b) in enumerate(zip(parts, told, strict=False)) if a != b), len(told)
    )
    lines = [f"{'  ' * depth}{one_line(parts[depth])}" for depth in range(shared, len(parts) - 1)]
    return len(parts) - 1, lines


def _leaf(layer: Layer, depth: int, live: frozenset[str], default: Layer | None) -> str:
    words = [f"{'  ' * depth}{one_line(layer.name.rsplit('.', 1)[-1])}".ljust(34)]
    prefix = f" +{layer.prefix} tokens" if layer.prefix else ""
    words.append(
        f"{layer.layout} {layer.channels} x {layer.grid[0]}x{layer.grid[1]}{prefix}".ljust(28)
    )
    words += ["" if layer.name in live else "gradient zero"]
    words += [f"stage{layer.stage}" if layer.stage is not None else ""]
    words += [f"block {layer.block}" if layer.block is not None else ""]
    words += ["default" if layer == default else ""]
    return "  ".join(filter(None, words)).rstrip()


def _methods(model: Model, live: int, layers: int) -> Iterator[str]:
    from camcli.engine import compatibility as suited

    if live:
        yield f"at a layer: {', '.join(suited.at_layer(live=True))}"
    if live < layers:
        yield f"where the gradient is zero: {', '.join(suited.at_layer(live=False))}"
    whole = suited.of_whole(model)
    yield f"of the whole model: {', '.join(name for name, reason in whole.items() if not reason)}"
    for reason in dict.fromkeys(filter(None, whole.values())):
        names = ", ".join(name for name, why in whole.items() if why == reason)
        yield f"not {names}: that needs {reason.partition('. Try')[0]}"
