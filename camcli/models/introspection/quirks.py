"""Facts that a probe cannot measure, as data: exceptions for some architectures.

An architecture is recognized by the attributes of its networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

ModuleNames = tuple[str, ...]
TokenOrder = tuple[int, ...]


def _find_timm_stages(network: nn.Module) -> ModuleNames:
    """timm's own list of the last modules before the resolution falls, or else of the blocks."""
    info = getattr(network, "feature_info", None)
    listed = info if isinstance(info, list) else ()
    return tuple(
        entry["module"] for entry in listed if isinstance(entry, dict) and "module" in entry
    )


def _find_vgg_stages(network: nn.Module) -> ModuleNames:
    """LayerCAM's stages: each stage of VGG ends with its pool; timm lists the layers before."""
    features = dict(network.named_children()).get("features", nn.Identity())
    return tuple(f"features.{n}" for n, m in features.named_children() if isinstance(m, POOL_TYPES))


def _list_coat_stages(_network: nn.Module) -> ModuleNames:
    """CoaT's stages; timm lists blocks that output the maps of all stages at once."""
    return tuple(f"serial_blocks{stage}" for stage in range(1, 5))


def _list_no_stages(_network: nn.Module) -> ModuleNames:
    """CrossViT has no stages: the modules that timm lists output both of its branches."""
    return ()


def _find_row_order(_network: nn.Module, _name: str, _count: int) -> TokenOrder:
    return ()


def _find_mask_unit_order(network: Any, name: str, count: int) -> TokenOrder:
    """Hiera keeps the tokens of a mask unit together; its `reroll` restores the row order."""
    grids = {rows * cols: block for block, (_, (rows, cols)) in network.reroll.schedule.items()}
    if not name.startswith(("blocks", "unroll")) or count not in grids:
        return ()
    places = network.reroll.forward(torch.arange(count).reshape(1, count, 1), grids[count])
    return tuple(places.flatten().tolist())


POOL_TYPES = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, slots=True)
class ArchitectureQuirks:
    """The stages of an architecture, its token order, and attention that does not mix positions.

    `ignored_attention` are names of attention modules that work inside one patch, or that pool.
    """

    name: str
    required_attributes: ModuleNames
    find_stages: Callable[[nn.Module], ModuleNames] = _find_timm_stages
    find_token_order: Callable[[nn.Module, str, int], TokenOrder] = _find_row_order
    ignored_attention: ModuleNames = ("attn_pool",)


ARCHITECTURE_QUIRKS = (
    ArchitectureQuirks("vgg", ("features", "pre_logits"), find_stages=_find_vgg_stages),
    ArchitectureQuirks(
        "vgg of torchvision", ("features", "avgpool", "classifier"), find_stages=_find_vgg_stages
    ),
    ArchitectureQuirks(
        "coat", ("serial_blocks1", "parallel_blocks"), find_stages=_list_coat_stages
    ),
    ArchitectureQuirks("crossvit", ("img_size_scaled",), find_stages=_list_no_stages),
    ArchitectureQuirks("hiera", ("unroll", "reroll"), find_token_order=_find_mask_unit_order),
    ArchitectureQuirks("tnt", ("pixel_embed",), ignored_attention=("attn_in",)),
    ArchitectureQuirks("any", ()),
)


def find_quirks(network: nn.Module) -> ArchitectureQuirks:
    """The first entry whose required attributes the network has; the last entry fits any."""
    return next(
        quirks
        for quirks in ARCHITECTURE_QUIRKS
        if all(hasattr(network, name) for name in quirks.required_attributes)
    )
