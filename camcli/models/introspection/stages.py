"""Number the stages or blocks of a network, as users count them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from camcli.core.types import Layer
from camcli.models.introspection.hooks import list_parent_names
from camcli.models.introspection.quirks import ArchitectureQuirks


def number_layers(
    network: nn.Module, quirks: ArchitectureQuirks, layers: Sequence[Layer], class_count: int
) -> tuple[Layer, ...]:
    """The layers with stage numbers from 1, or with block numbers from 0 if all maps have one grid.

    Stages and blocks are those that timm lists. Without a list, stages are the last layers of each
    resolution, and blocks are the modules in a list that hold attention.
    """
    listed = _find_listed_layers(quirks.find_stages(network), layers)
    has_one_grid = len(listed) > 1 and len({layer.grid for layer in listed}) == 1
    if has_one_grid:
        return _add_numbers(layers, blocks=listed)
    features = [layer for layer in layers if layer.channels != class_count]
    if stages := listed or _find_resolution_stages(network, features):
        return _add_numbers(layers, stages=stages)
    return _add_numbers(layers, blocks=_find_attention_blocks(network, layers))


def _add_numbers(
    layers: Sequence[Layer], stages: Sequence[Layer] = (), blocks: Sequence[Layer] = ()
) -> tuple[Layer, ...]:
    stage = {layer.name: number for number, layer in enumerate(stages, start=1)}
    block = {layer.name: number for number, layer in enumerate(blocks)}
    return tuple(
        replace(layer, stage=stage.get(layer.name), block=block.get(layer.name)) for layer in layers
    )


def _find_listed_layers(names: Sequence[str], layers: Sequence[Layer]) -> list[Layer]:
    found = (_find_listed_layer(name, layers) for name in names)
    return list({layer.name: layer for layer in found if layer}.values())


def _find_listed_layer(name: str, layers: Sequence[Layer]) -> Layer | None:
    """The layer with a listed name, or the one whose name ends with it, or the last one inside."""
    plain = {layer.module_name: layer for layer in layers}
    if not name or name in plain:
        return plain.get(name)
    ending = [layer for known, layer in plain.items() if known.endswith(f".{name}")]
    inside = [layer for known, layer in plain.items() if known.startswith(f"{name}.")]
    shallow = min((layer.name.count(".") for layer in inside), default=0)
    found = ending if len(ending) == 1 else [la for la in inside if la.name.count(".") == shallow]
    return found[-1] if found else None


def _find_resolution_stages(network: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """The last layer of each resolution on the trunk; empty if the resolution ever rises.

    A layer inside a module that ends at another resolution is on a branch; a Sequential is not a
    branch.
    """
    grids = {layer.module_name: layer.grid for layer in layers}

    def is_on_trunk(layer: Layer) -> bool:
        above = [
            name
            for name in list_parent_names(layer.name)
            if grids.get(name, layer.grid) != layer.grid
        ]
        return all(isinstance(network.get_submodule(name), nn.Sequential) for name in above)

    trunk = {layer.grid: layer for layer in layers if is_on_trunk(layer)}
    sizes = [math.prod(grid) for grid in trunk]
    only_falls = len(sizes) > 2 and sizes == sorted(sizes, reverse=True)
    return list(trunk.values()) if only_falls else []


def _find_attention_blocks(network: nn.Module, layers: Sequence[Layer]) -> list[Layer]:
    """The layers that are members of a list of modules and hold attention."""
    plain = {layer.module_name: layer for layer in layers}
    found = {
        _find_list_member(network, attention): None
        for la in layers
        for attention in la.attention_consumers
    }
    return [plain[name] for name in found if name in plain]


def _find_list_member(network: nn.Module, name: str) -> str:
    """The innermost list member around a module or equal to it, or else its parent."""
    lists = (nn.Sequential, nn.ModuleList)
    around = [*list_parent_names(name), name]
    members = [
        inner
        for outer, inner in zip(["", *around], around, strict=False)
        if isinstance(network.get_submodule(outer), lists)
    ]
    return members[-1] if members else name.rpartition(".")[0] or name
