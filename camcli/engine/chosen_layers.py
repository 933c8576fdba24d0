"""The layers of a model that the user chose, and whether a method can take them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from camcli.core.errors import LayerError, MethodError, UsageError
from camcli.core.types import PIXELS, Layer
from camcli.engine.providers.provider_registry import list_model_parts
from camcli.engine.smoothing import Smoothing, compute_view_size
from camcli.methods.registry import METHODS, Method
from camcli.models.introspection.default_layer import find_default_layer
from camcli.models.introspection.probe import accepts_size
from camcli.models.introspection.selectors import BlockFinder, parse_layer_spec, split_layer_spec
from camcli.models.model import Model

FIRST_BLOCK_OR_PIXELS = "first block or pixels"


def create_pixel_layer(model: Model) -> Layer:
    """The input of a model as a layer; no module has the name."""
    return Layer(PIXELS, "NCHW", model.transform.channel_count, model.input_size)


def find_chosen_layers(
    model: Model, layer_spec: str | None, find_block: BlockFinder
) -> tuple[Layer, ...]:
    """The layers that a specification names; "first" is the first block or stage.

    "first block or pixels" is the input itself unless the model has blocks. Raises LayerError.
    """
    if layer_spec == FIRST_BLOCK_OR_PIXELS:
        blocks = (layer for layer in model.layers if layer.block is not None)
        return (next(blocks, create_pixel_layer(model)),)
    if not model.layers:
        others = [n for n, m in METHODS.items() if not m.per_layer and not list_model_parts(m)]
        height, width = model.input_size
        raise LayerError(
            f"{model.name} has no layer that gives maps at {height}x{width}; "
            f"these methods need no layer: {', '.join(others)}"
        )
    if layer_spec == "first":
        numbered = (la for la in model.layers if la.block is not None or la.stage is not None)
        return (next(numbered, model.layers[0]),)
    return parse_layer_spec(
        layer_spec or "last", model.layers, lambda: find_model_default_layer(model), find_block
    )


def split_layer_specs(model: Model, layer_specs: Sequence[str | None]) -> list[str | None]:
    """The specifications with `each:SPEC` replaced by one for each of its layers."""
    split = (
        split_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))
        if spec is not None
        else (None,)
        for spec in layer_specs
    )
    return list(dict.fromkeys(spec for specs in split for spec in specs))


def check_layer_sizes(method: Method, layers: Sequence[Layer]) -> None:
    """Raise MethodError for a layer with more positions than the method can take."""
    for layer in layers:
        positions = math.prod(layer.grid)
        if method.max_positions is not None and positions > method.max_positions:
            raise MethodError(
                f"{method.name}: {layer.name} has {positions} positions, but the limit "
                f"is {method.max_positions}; choose a deeper layer"
            )


def check_view_sizes(model: Model, smoothing: Smoothing) -> None:
    """Raise UsageError if the network does not take the views of `--smooth scales`."""
    has_tokens = any(layer.layout == "NLC" for layer in model.layers)
    for side in smoothing.sides:
        rows, cols = compute_view_size(side, model.input_size)
        if has_tokens or not accepts_size(model.network, (rows, cols), model.input_size):
            raise UsageError(
                f"--smooth scales: {model.name} does not take inputs of {rows}x{cols}; choose "
                "other sides, a CNN that takes any size, or --smooth augment"
            )


def find_model_default_layer(model: Model) -> Layer:
    """The layer that is explained if the user names none: see `find_default_layer`."""
    return find_default_layer(model.network, model.layers, model.input_size)
