"""Check that the weights of a network fit into memory, before they are allocated."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from camcli.core.errors import ModelError


def check_memory(name: str, create: Callable[[], nn.Module]) -> None:
    """Raise ModelError for weights that are larger than the free memory.

    Without this check the system would end the process, and no error would be printed.
    """
    free = None if _is_meta_default() else read_free_memory()
    if free is None:
        return
    with torch.device("meta"), suppress(NotImplementedError):
        needed = sum(p.numel() * p.element_size() for p in create().parameters())
        if needed > free:
            raise ModelError(
                f"{name} needs {needed / 2**30:.1f} GB for its weights, but only "
                f"{free / 2**30:.1f} GB of memory is free; choose a smaller variant "
                f"(`camcli models {name.split('_')[0]}`)"
            )


def _is_meta_default() -> bool:
    """Whether networks are created without memory for their weights."""
    return torch.empty(0).is_meta


def read_free_memory() -> int | None:
    """The free memory in bytes, where the system reports it."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
