"""Print the layers of a model as a tree, for `camcli layers --tree`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from camcli.cli.console import print_data, print_info
from camcli.core.errors import to_one_line

if TYPE_CHECKING:
    from camcli.core.types import Layer
    from camcli.models.model import Model


def print_layer_tree(
    model: Model, default_layer: Layer | None, option_by_name: Mapping[str, str]
) -> None:
    """Print every layer below its parent modules, then the methods that suit the layers.

    A stage, a block, and the input of a block's attention have the option that selects them.
    """
    from camcli.engine.compatibility import find_model_live_layers

    live = find_model_live_layers(model)
    layers, previous = model.layers, ""
    order = _compute_module_order(layers)
    # A parent runs to its end after its children, and is printed before them.
    for layer in sorted(layers, key=lambda la: [order[n] for n in _list_enclosing_modules(la)]):
        for line in _format_branches(layer.name, previous):
            print_data(line)
        print_data(_format_leaf(layer, live, default_layer, option_by_name[layer.name]))
        previous = layer.module_name
    for line in _iter_method_lines(model, len(live), len(layers)):
        print_data(line)
    print_info(f"{model.name} at {model.input_size[0]}x{model.input_size[1]}: {len(layers)} layers")


def _compute_module_order(layers: Sequence[Layer]) -> dict[str, int]:
    """Number the modules by the first layer that they are or contain."""
    order: dict[str, int] = {}
    for number, layer in enumerate(layers):
        for name in _list_enclosing_modules(layer):
            order.setdefault(name, number)
    return order


def _list_enclosing_modules(layer: Layer) -> list[str]:
    """List the names of a layer's parent modules, then its own name."""
    from camcli.models.introspection.hooks import list_parent_names

    return [*list_parent_names(layer.module_name), layer.module_name]


def _format_branches(name: str, previous_name: str) -> list[str]:
    """Format the parent modules of a layer that are not printed yet."""
    parts, previous = name.split("."), previous_name.split(".")
    shared = next(
        (n for n, (a, b) in enumerate(zip(parts, previous, strict=False)) if a != b), len(previous)
    )
    return [f"{'  ' * depth}{to_one_line(parts[depth])}" for depth in range(shared, len(parts) - 1)]


def _format_leaf(
    layer: Layer, live_names: frozenset[str], default_layer: Layer | None, option: str
) -> str:
    indent, own_name = "  " * layer.name.count("."), layer.name.rsplit(".", 1)[-1]
    prefix = f" +{layer.prefix_token_count} tokens" if layer.prefix_token_count else ""
    shape = f"{layer.layout} {layer.channels} x {layer.grid[0]}x{layer.grid[1]}{prefix}"
    is_numbered = layer.stage is not None or layer.block is not None
    words = [
        f"{indent}{to_one_line(own_name)}".ljust(34),
        shape.ljust(28),
        "" if layer.name in live_names else "gradient zero",
        option if is_numbered or option.startswith("--block") else "",
        "default" if layer == default_layer else "",
    ]
    return "  ".join(filter(None, words)).rstrip()


def _iter_method_lines(model: Model, live_count: int, layer_count: int) -> Iterator[str]:
    from camcli.engine.compatibility import list_layer_methods, list_whole_model_methods

    if live_count:
        yield f"methods for a layer: {', '.join(list_layer_methods(is_live=True))}"
    if live_count < layer_count:
        names = ", ".join(list_layer_methods(is_live=False))
        yield f"methods for a layer with zero gradient: {names}"
    whole = list_whole_model_methods(model)
    available = ", ".join(name for name, reason in whole.items() if not reason)
    yield f"methods for the whole model: {available}"
    for reason in dict.fromkeys(filter(None, whole.values())):
        names = ", ".join(name for name, why in whole.items() if why == reason)
        yield f"not available: {names}; needs {reason.partition('. Try')[0]}"
