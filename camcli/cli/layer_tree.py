"""A model's layers where they lie, as `camcli layers --tree` draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from camcli.cli.console import print_data, print_info
from camcli.core.errors import to_one_line

if TYPE_CHECKING:
    from camcli.core.types import Layer
    from camcli.models.model import Model


def print_layer_tree(model: Model, default_layer: Layer | None) -> None:
    """Every layer under the modules that hold it, then what each method can be asked of."""
    from camcli.engine.compatibility import (
        find_model_live_layers,
    )

    live = find_model_live_layers(model)
    rows, told = model.layers, ""
    order = _compute_module_order(rows)
    # A parent stands before what it holds, though it is finished after it.
    for layer in sorted(rows, key=lambda la: [order[name] for name in _list_enclosing_modules(la)]):
        depth, label = _format_branch(layer.name, told)
        told = layer.module_name
        for line in label:
            print_data(line)
        print_data(_format_leaf(layer, depth, live, default_layer))
    for line in _iter_method_lines(model, len(live), len(rows)):
        print_data(line)
    print_info(f"{model.name} at {model.input_size[0]}x{model.input_size[1]}: {len(rows)} layers")


def _compute_module_order(layers: Sequence[Layer]) -> dict[str, int]:
    """When the first layer of each module, in it or itself, is finished."""
    order: dict[str, int] = {}
    for number, layer in enumerate(layers):
        for name in _list_enclosing_modules(layer):
            order.setdefault(name, number)
    return order


def _list_enclosing_modules(layer: Layer) -> list[str]:
    """A layer's name, and before it those of the modules that hold it."""
    from camcli.models.introspection.hooks import list_parent_names

    return [*list_parent_names(layer.module_name), layer.module_name]


def _format_branch(name: str, previous_name: str) -> tuple[int, list[str]]:
    """How deep a layer lies, and the modules that hold it and are no layers themselves."""
    parts, told = name.split("."), previous_name.split(".")
    shared = next(
        (n for n, (a, b) in enumerate(zip(parts, told, strict=False)) if a != b), len(told)
    )
    lines = [
        f"{'  ' * depth}{to_one_line(parts[depth])}" for depth in range(shared, len(parts) - 1)
    ]
    return len(parts) - 1, lines


def _format_leaf(
    layer: Layer, depth: int, live_names: frozenset[str], default_layer: Layer | None
) -> str:
    words = [f"{'  ' * depth}{to_one_line(layer.name.rsplit('.', 1)[-1])}".ljust(34)]
    prefix = f" +{layer.prefix_token_count} tokens" if layer.prefix_token_count else ""
    words.append(
        f"{layer.layout} {layer.channels} x {layer.grid[0]}x{layer.grid[1]}{prefix}".ljust(28)
    )
    words += ["" if layer.name in live_names else "gradient zero"]
    words += [f"stage{layer.stage}" if layer.stage is not None else ""]
    words += [f"block {layer.block}" if layer.block is not None else ""]
    words += ["default" if layer == default_layer else ""]
    return "  ".join(filter(None, words)).rstrip()


def _iter_method_lines(model: Model, live_count: int, layer_count: int) -> Iterator[str]:
    from camcli.engine.compatibility import list_layer_methods, list_whole_model_methods

    if live_count:
        yield f"at a layer: {', '.join(list_layer_methods(is_live=True))}"
    if live_count < layer_count:
        yield f"where the gradient is zero: {', '.join(list_layer_methods(is_live=False))}"
    whole = list_whole_model_methods(model)
    yield f"of the whole model: {', '.join(name for name, reason in whole.items() if not reason)}"
    for reason in dict.fromkeys(filter(None, whole.values())):
        names = ", ".join(name for name, why in whole.items() if why == reason)
        yield f"not {names}: that needs {reason.partition('. Try')[0]}"
