"""The probe image, its channels, and the attributes of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

USUAL_CHANNEL_COUNTS = (3, 1, 2, 4)
MAX_CHANNELS = 512  # hyperspectral cameras have about 400
# Measured once: a network that is probed may have hooks, which a second pass would disturb.
_channel_counts: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def create_probe_image(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """A fixed noise image (1,C,H,W) on the network's device; any real input would do."""
    return _create_noise(network, find_channel_count(network, size), size)


def _create_noise(network: nn.Module, channel_count: int, size: tuple[int, int]) -> Tensor:
    noise = torch.randn(1, channel_count, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(network.parameters(), noise).device)


def find_channel_count(network: nn.Module, size: tuple[int, int]) -> int:
    """The number of channels of the input that a network in eval mode takes: 3 if it can.

    The first convolution says so, or one that makes three channels for it. Unless all take three,
    camcli tries the numbers, because modules may be declared in another order than they run in. 3
    if the network runs on none.
    """
    if network not in _channel_counts:
        declared = {*_iter_declared_counts(network, size)}
        counts = dict.fromkeys((3, *_iter_declared_counts(network, size), *USUAL_CHANNEL_COUNTS))
        _channel_counts[network] = (
            3 if declared == {3} else next((n for n in counts if _accepts(network, n, size)), 3)
        )
    return _channel_counts[network]


def _iter_declared_counts(network: nn.Module, size: tuple[int, int]) -> Iterator[int]:
    """The numbers of channels that the modules allow, the likeliest first."""
    modules = list(network.modules())
    convolutions = [m for m in modules if isinstance(m, nn.Conv2d)]
    found = [m.in_channels for m in convolutions[:1]]
    found += [m.in_channels for m in convolutions if m.out_channels == 3]
    if not convolutions:  # the modules of a program are hidden, but its weights are not
        found += [p.shape[1] for p in network.parameters() if p.ndim == 4][:1]
        linear = (m.in_features for m in modules if isinstance(m, nn.Linear))
        found += [next(linear, 0) // math.prod(size)]
    yield from (count for count in found if 0 < count <= MAX_CHANNELS)


def _accepts(network: nn.Module, channel_count: int, size: tuple[int, int]) -> bool:
    try:
        with torch.no_grad():
            network(_create_noise(network, channel_count, size))
    except Exception:  # noqa: BLE001 - the code of a network may be a user's own
        return False
    return True


def accepts_size(network: nn.Module, size: tuple[int, int], usual: tuple[int, int]) -> bool:
    """Whether a network runs on inputs of this size besides its `usual` one."""
    return _accepts(network, find_channel_count(network, usual), size)


def find_attribute(network: nn.Module, attribute: str) -> Any:
    """The first value of an attribute among a network and its modules, or None."""
    values = (getattr(module, attribute, None) for module in network.modules())
    return next((value for value in values if value is not None), None)
