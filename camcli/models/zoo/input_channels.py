"""Networks for images of another number of channels than three."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from camcli.models.introspection.probe import MAX_CHANNELS


def count_input_channels(network: nn.Module, state: Mapping[str, Tensor]) -> int:
    """The input channels of weights for a network that, as it is, takes three.

    They differ in the convolutions that read images, and these must be equal in all else.
    """
    pairs = [(own.shape, state[k].shape) for k, own in network.state_dict().items() if k in state]
    counts = {
        theirs[1]
        for own, theirs in pairs
        if len(own) == len(theirs) == 4
        and own[1] == 3 != theirs[1]
        and (own[0], *own[2:]) == (theirs[0], *theirs[2:])
    }
    found = counts.pop() if len(counts) == 1 else 3
    return found if 0 < found <= MAX_CHANNELS else 3


def replace_stem(network: nn.Module, channel_count: int) -> None:
    """Give the first convolution another number of input channels, and random weights."""
    name, stem = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    settings: dict[str, Any] = {
        key: getattr(stem, key) for key in ("out_channels", "kernel_size", "stride", "padding")
    }
    has_bias = stem.bias is not None
    network.set_submodule(name, nn.Conv2d(channel_count, **settings, bias=has_bias))
