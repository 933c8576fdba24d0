"""The layers that a column of a figure stands for."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.core.errors import LayerError
from camcli.core.types import Layer
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.methods.registry import Method
from camcli.models.introspection.selectors import find_block_layer, parse_layer_spec
from camcli.models.model import Model
from camcli.runs.figure_columns import BLOCKS, LAYERS, CellSpec


def needs_request(method: Method, spec: CellSpec) -> bool:
    """Whether only a request knows the layers: the method's own ones, or those of `--layers`."""
    return not method.per_layer or spec.layers == LAYERS


def list_layers(
    model: Model, method: Method, spec: str, own_layers: Sequence[Layer]
) -> Sequence[Layer]:
    """The layers of a column; `own_layers` are those of the request, where one is needed.

    Raises LayerError for a layer that the network or the method does not have.
    """
    if not method.per_layer:
        return _select_own_layers(model, method, spec, own_layers)
    if spec == LAYERS:
        return own_layers
    if spec == BLOCKS:
        count = len([layer for layer in model.layers if layer.block is not None])
        return [find_block_layer(number, model.layers) for number in range(max(1, count))]
    if spec.startswith("block "):
        return [find_block_layer(int(spec.removeprefix("block ")), model.layers)]
    return parse_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))


def _select_own_layers(
    model: Model, method: Method, spec: str, own_layers: Sequence[Layer]
) -> Sequence[Layer]:
    """Layers among those that a method such as tscam reads by itself, which are its blocks."""
    if "attention" not in method.input_names:
        raise LayerError(f"--columns {spec}: {method.name} gives no map for a single layer")
    if spec in (LAYERS, BLOCKS):
        return own_layers
    if spec.startswith("block "):
        number = int(spec.removeprefix("block "))
        if not -len(own_layers) <= number < len(own_layers):
            raise LayerError(f"{spec}: this model has blocks 0..{len(own_layers) - 1}")
        return [own_layers[number]]
    wanted = parse_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))
    known = {layer.name: layer for layer in own_layers}
    for layer in wanted:
        if layer.name not in known:
            raise LayerError(f"--columns {spec}: {method.name} has maps of {', '.join(known)}")
    return [known[layer.name] for layer in wanted]
