"""What cannot be read off a network's tensors, per architecture family, as data.

A family is recognised by the attributes that its networks have. Knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Names = tuple[str, ...]


def _none(_network: nn.Module) -> Names:
    return ()


def _pools(network: nn.Module) -> Names:
    """LayerCAM's stages: every stage of VGG ends in a pool. timm lists the layers before them."""
    features = network.get_submodule("features")
    return tuple(f"features.{n}" for n, m in features.named_children() if isinstance(m, POOLS))


def _feature_info(network: nn.Module) -> Names:
    """timm's own list of the layers after which the resolution falls."""
    info = network.feature_info
    return tuple(entry["module"] for entry in info) if isinstance(info, list) else ()


def _blocks(network: nn.Module) -> Names:
    return tuple(f"blocks.{n}" for n, _ in network.get_submodule("blocks").named_children())


POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True, slots=True)
class Family:
    """The stages and transformer blocks of a kind of network, and whether attention is global."""

    name: str
    has: Names
    stages: Callable[[nn.Module], Names] = _none
    blocks: Callable[[nn.Module], Names] = _none
    attention: str = "no attention"


FAMILIES = (
    Family("vgg", ("features", "pre_logits"), stages=_pools),
    Family(
        "vit", ("blocks", "patch_embed", "num_prefix_tokens"), blocks=_blocks, attention="global"
    ),
    Family(
        "swin",
        ("layers", "patch_embed", "feature_info"),
        stages=_feature_info,
        attention="attention in windows only",
    ),
    Family("cnn", ("feature_info",), stages=_feature_info),
    Family("other", ()),
)


def of(network: nn.Module) -> Family:
    """The first family all of whose attributes the network has."""
    return next(f for f in FAMILIES if all(hasattr(network, name) for name in f.has))
