"""Gradients inside camcli, whatever mode the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def allow_gradients() -> Iterator[None]:
    """Record gradients, also inside a caller's `no_grad` or `inference_mode`. Also a decorator."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
