"""Choose the layer whose features tell which positions of an image belong together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from camcli.core.types import Layer

# From this many rows on a map is fine enough: the affinity then keeps its grid.
FINE_ROWS = 12
# The affinity has the square of this many values.
MAX_POSITIONS = 4096


def find_affinity_layer(layers: Sequence[Layer], map_layer: Layer) -> Layer | None:
    """The layer to compare for the map of `map_layer`; None without a layer of moderate size.

    It lies in the middle of the network, where features are no longer textures and not yet those of
    the whole image: 0.722 GT-known of ViT-Tiny at block 5 of 12, 0.686 at block 1, 0.665 at block
    11. On a network with stages it is the last stage that is finer than the map, or on a fine grid
    the middle layer of that grid. On a transformer it is the middle block, or the end of a
    convolutional trunk that is deeper than the blocks.
    """
    small = [la for la in layers if la.grid[0] * la.grid[1] <= MAX_POSITIONS]
    blocks = [layer for layer in small if layer.block is not None]
    if blocks:
        return find_trunk_end(layers) or blocks[(len(blocks) - 1) // 2]
    stages = [layer for layer in small if layer.stage is not None]
    if min(map_layer.grid) < FINE_ROWS:
        finer = [stage for stage in stages if _is_finer(stage, map_layer)]
        if finer:
            return finer[-1]
    same = _list_same_grid(small, map_layer)
    coarser = [stage for stage in stages if not _is_finer(stage, map_layer)]
    return same[(len(same) - 1) // 2] if same else next(iter(coarser), None)


def find_trunk_end(layers: Sequence[Layer]) -> Layer | None:
    """The end of a convolutional trunk that is deeper than the blocks behind it; None without.

    It is the last outermost layer of the blocks' grid before the trunk's resolution falls further.
    """
    block = next((layer for layer in layers if layer.block is not None), None)
    if block is None:
        return None
    trunk = _list_trunk_layers(layers, block)
    until_coarser = takewhile(lambda layer: not _is_finer(block, layer), trunk)
    same = [layer for layer in until_coarser if layer.grid == block.grid]
    depth = min((layer.name.count(".") for layer in same), default=0)
    return next((la for la in reversed(same) if la.name.count(".") == depth), None)


def _is_finer(layer: Layer, other: Layer) -> bool:
    return layer.grid[0] > other.grid[0] and layer.grid[1] > other.grid[1]


def _list_same_grid(layers: Sequence[Layer], map_layer: Layer) -> list[Layer]:
    """The layers of the map's grid up to its layer: the outermost modules, at least two."""
    names = [layer.name for layer in layers]
    until = names.index(map_layer.name) + 1 if map_layer.name in names else len(names)
    own_grid = (layer for layer in layers[:until] if layer.grid == map_layer.grid)
    same = list({layer.output_id: layer for layer in own_grid}.values())
    for depth in sorted({layer.name.count(".") for layer in same}):
        outer = [layer for layer in same if layer.name.count(".") <= depth]
        if len(outer) > 1:
            return outer
    return same


def _list_trunk_layers(layers: Sequence[Layer], first_block: Layer) -> list[Layer]:
    """The convolutional layers before the first block, if they are more than all later layers."""
    prefix = f"{first_block.name}."
    before = list(
        takewhile(lambda la: la.name != first_block.name and not la.name.startswith(prefix), layers)
    )
    maps = [layer for layer in before if layer.layout == "NCHW"]
    return maps if len(maps) > len(layers) - len(before) else []
