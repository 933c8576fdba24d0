"""The probe image, and the attributes of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def create_probe_image(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """A fixed noise image (1,3,H,W) on the network's device; any real input would do."""
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(network.parameters(), noise).device)


def find_attribute(network: nn.Module, attribute: str) -> Any:
    """The first value of an attribute among a network and its modules, or None."""
    values = (getattr(module, attribute, None) for module in network.modules())
    return next((value for value in values if value is not None), None)
