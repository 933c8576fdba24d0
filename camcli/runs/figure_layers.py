"""The layers that a column of a figure stands for."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.core.errors import LayerError
from camcli.core.types import Layer
from camcli.engine.chosen_layers import find_chosen_layers
from camcli.engine.providers.provider_registry import can_choose_blocks
from camcli.methods.registry import Method
from camcli.models.introspection.selectors import find_block_layer, find_block_output
from camcli.models.model import Model
from camcli.runs.figure_columns import ALL_BLOCKS, BLOCKS, LAYERS, CellSpec


def has_block_maps(method: Method) -> bool:
    """Whether one request gives a map of each block, as tscam does."""
    return not method.per_layer and bool({"attention", "head_attention"} & {*method.input_names})


def needs_own_requests(method: Method) -> bool:
    """Whether a single block takes a request of its own, as in `--method rollout --block 3`."""
    return can_choose_blocks(method) and not has_block_maps(method)


def needs_request(method: Method, spec: CellSpec) -> bool:
    """Whether only a request knows the layers: the method's own ones, or those of `--layers`."""
    return has_block_maps(method) or spec.layers == LAYERS


def list_layers(
    model: Model, method: Method, spec: str, own_layers: Sequence[Layer]
) -> Sequence[Layer]:
    """The layers of a column; `own_layers` are those of the request, where one is needed.

    Raises LayerError for a layer that the network or the method does not have.
    """
    if not method.per_layer and not can_choose_blocks(method):
        raise LayerError(f"--columns {spec}: {method.name} gives no map for a single layer")
    if spec == LAYERS or (spec == BLOCKS and has_block_maps(method)):
        return own_layers
    find_block = find_block_layer if method.per_layer else find_block_output
    chosen = find_chosen_layers(model, ALL_BLOCKS if spec == BLOCKS else spec, find_block)
    return _select_own_layers(method, spec, chosen, own_layers) if own_layers else chosen


def _select_own_layers(
    method: Method, spec: str, chosen: Sequence[Layer], own_layers: Sequence[Layer]
) -> Sequence[Layer]:
    """The chosen layers among those that a method such as tscam reads by itself."""
    known = {layer.name: layer for layer in own_layers}
    for layer in chosen:
        if layer.name not in known:
            raise LayerError(f"--columns {spec}: {method.name} has maps of {', '.join(known)}")
    return [known[layer.name] for layer in chosen]
