"""What cannot be read off a network's tensors, per architecture family, as data.

A family is recognised by the attributes that its networks have. Knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Names = tuple[str, ...]
Order = tuple[int, ...]


def _feature_info(network: nn.Module) -> Names:
    """timm's own list of where the resolution falls; of one resolution it lists the blocks."""
    info = getattr(network, "feature_info", None)
    listed = info if isinstance(info, list) else ()
    return tuple(
        entry["module"] for entry in listed if isinstance(entry, dict) and "module" in entry
    )


def _pools(network: nn.Module) -> Names:
    """LayerCAM's stages: every stage of VGG ends in a pool. timm lists the layers before them."""
    features = dict(network.named_children()).get("features", nn.Identity())
    return tuple(f"features.{n}" for n, m in features.named_children() if isinstance(m, POOLS))


def _serial(_network: nn.Module) -> Names:
    """CoaT's stages; timm lists blocks that put the maps of all stages out at once."""
    return tuple(f"serial_blocks{stage}" for stage in range(1, 5))


def _none(_network: nn.Module) -> Names:
    """Both branches of CrossViT come out of what timm lists."""
    return ()


def _row_by_row(_network: nn.Module, _name: str, _count: int) -> Order:
    return ()


def _by_mask_unit(network: Any, name: str, count: int) -> Order:
    """Hiera keeps the tokens of a mask unit together; its own `reroll` says where each belongs."""
    grids = {rows * cols: block for block, (_, (rows, cols)) in network.reroll.schedule.items()}
    if not name.startswith(("blocks", "unroll")) or count not in grids:
        return ()
    places = network.reroll.forward(torch.arange(count).reshape(1, count, 1), grids[count])
    return tuple(places.flatten().tolist())


POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, slots=True)
class Family:
    """The stages of a kind of network, the order of its tokens, and attention that mixes no places.

    `beside` are names of attention modules that work inside a patch, or that pool.
    """

    name: str
    has: Names
    stages: Callable[[nn.Module], Names] = _feature_info
    order: Callable[[nn.Module, str, int], Order] = _row_by_row
    beside: Names = ("attn_pool",)


FAMILIES = (
    Family("vgg", ("features", "pre_logits"), stages=_pools),
    Family("vgg of torchvision", ("features", "avgpool", "classifier"), stages=_pools),
    Family("coat", ("serial_blocks1", "parallel_blocks"), stages=_serial),
    Family("crossvit", ("img_size_scaled",), stages=_none),
    Family("hiera", ("unroll", "reroll"), order=_by_mask_unit),
    Family("tnt", ("pixel_embed",), beside=("attn_in",)),
    Family("any", ()),
)


def of(network: nn.Module) -> Family:
    """The first family all of whose attributes the network has."""
    return next(f for f in FAMILIES if all(hasattr(network, name) for name in f.has))
