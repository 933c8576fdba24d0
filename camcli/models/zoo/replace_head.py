"""Replace the classifier of a network: by TS-CAM's head or by CAM's (GAP and a linear layer)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import MethodError
from camcli.models.introspection.heads import ConvHead, PooledHead
from camcli.models.introspection.probe import create_probe_image
from camcli.models.zoo.checkpoints import find_classifier_layers
from camcli.models.zoo.library import Size


def attach_tscam_head(network: nn.Module, class_count: int, size: Size, name: str) -> nn.Module:
    """Replace the classifier by TS-CAM's convolution over the patch tokens; changes the network.

    The head has the random weights of Conv2d; all other weights stay. Raises MethodError for a
    network that is not a vision transformer with a CLS token.
    """
    tokens = _compute_headless_features(network, size) if hasattr(network, "head") else None
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    grid = getattr(getattr(network, "patch_embed", None), "grid_size", None)
    has_cls = getattr(network, "cls_token", None) is not None
    if tokens is None or tokens.ndim != 3 or not (has_cls and prefix and grid):
        raise MethodError(
            f"{name} is not a vision transformer with a CLS token; try a vit_ or deit_ model, "
            f"or `camcli train gap` for a CNN"
        )
    if tokens.shape[1] != prefix + grid[0] * grid[1]:
        raise MethodError(
            f"{name} has {tokens.shape[1]} tokens; TS-CAM needs {prefix} + {grid[0]}x{grid[1]}"
        )
    network.head = ConvHead(tokens.shape[2], class_count, (grid[0], grid[1]), prefix)
    return network


def attach_gap_head(network: nn.Module, class_count: int, size: Size, name: str) -> nn.Module:
    """Replace the classifier by global average pooling and a linear layer; changes the network.

    All layers between the last map and the logits are removed. Raises MethodError for a network
    whose last output is not a map (B,C,H,W).
    """
    named = find_classifier_layers(network)
    if hasattr(network, "pre_logits"):  # VGG's fully connected layers
        network.pre_logits = nn.Identity()
    features = _compute_headless_features(network, size)
    if (
        features is None
        or features.ndim != 4
        or len(named) != 1
        or not _has_channels_second(network, features)
    ):
        raise MethodError(
            f"{name} is not a CNN whose last map is (B,C,H,W); for a transformer, "
            f"use `camcli train tscam`"
        )
    network.set_submodule(named[0], PooledHead(features.shape[1], class_count))
    return network


HEAD_ATTACHERS: Mapping[str, Callable[[nn.Module, int, Size, str], nn.Module]] = {
    "tscam": attach_tscam_head,
    "gap": attach_gap_head,
}


def _compute_headless_features(network: nn.Module, size: Size) -> Tensor | None:
    """Remove pooling and classifier from a timm network, and return its output for an image."""
    reset: Any = getattr(network, "reset_classifier", None)
    if reset is None:
        return None
    try:
        reset(0, global_pool="")
        with torch.no_grad():
            found = network.eval()(create_probe_image(network, size))
    except (AssertionError, TypeError, RuntimeError, ValueError, AttributeError):
        return None
    return found if isinstance(found, Tensor) else None


def _has_channels_second(network: nn.Module, features: Tensor) -> bool:
    """Whether the second dimension has as many channels as timm says."""
    return features.shape[1] in (
        getattr(network, "head_hidden_size", None),
        getattr(network, "num_features", None),
    )
