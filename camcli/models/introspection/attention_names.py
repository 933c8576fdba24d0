"""Find the attention modules of a network by their attributes, classes and children."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

HEAD_COUNT_ATTRIBUTES = (
    "num_heads",
    "num_attention_heads",
    "heads",
    "n_heads",
    "n_head",
    "nhead",
    "num_head",
)
PROJECTION_TYPES = (nn.Linear, nn.Conv2d)


def find_enclosing_attention(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Map the name of each module in attention, or of attention itself, to the attention's name.

    Inside attention, tensors such as queries split into heads can look like maps.
    """
    return {
        name: attention
        for attention in _find_attention_names(modules)
        for name in modules
        if name == attention or _is_inside(name, attention)
    }


def _find_attention_names(modules: Mapping[str, nn.Module]) -> list[str]:
    """The outermost modules that look like attention.

    A number of heads alone does not make attention: the blocks of TinyViT and DaViT, and the
    relative positions inside attention (vit_relpos, MaxViT), have one too.
    """
    headed = {name for name, module in modules.items() if name and _has_head_count(module)}
    named = {name for name, module in modules.items() if name and _is_named_attention(module)}
    projecting = {name for name in headed | named if _has_projection(modules[name])}
    # XCiT's ClassAttentionBlock and TinyViT's blocks hold the attention: only the innermost counts.
    found = {n for n in projecting if not any(_is_inside(other, n) for other in projecting)}
    # The projections of LeViT's and EfficientViT's attention lie in modules further inside.
    found |= {n for n in headed & named if not any(_are_nested(n, other) for other in found)}
    # EfficientViT's LocalWindowAttention holds a CascadedGroupAttention.
    return [n for n in modules if n in found and not any(_is_inside(n, other) for other in found)]


def _has_head_count(module: nn.Module) -> bool:
    counts = (getattr(module, attribute, None) for attribute in HEAD_COUNT_ATTRIBUTES)
    return any(isinstance(count, int) and count > 0 for count in counts)


def _is_named_attention(module: nn.Module) -> bool:
    """Whether the class name says so; MobileViTv2's attention has no number of heads."""
    return "att" in type(module).__name__.casefold()


def _has_projection(module: nn.Module) -> bool:
    return any(isinstance(child, PROJECTION_TYPES) for child in module.children())


def _is_inside(inner: str, outer: str) -> bool:
    return inner.startswith(f"{outer}.")


def _are_nested(one: str, other: str) -> bool:
    return one == other or _is_inside(one, other) or _is_inside(other, one)
