"""The only hooks in the program: from layer names to tensors. Knows not what they are for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Reading = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a forward pass left behind: tapped outputs in its graph, and readings outside it."""

    taps: dict[str, Tensor] = field(default_factory=dict)
    readings: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def record(
    network: nn.Module,
    taps: Collection[str] = (),
    readings: Mapping[str, Reading] | None = None,
) -> Iterator[Recorded]:
    """Record layers of every forward pass inside the context; all hooks go when it ends.

    A tap keeps the layer's output where autograd can reach it; the graph starts at the shallowest
    one, so nothing before it is stored. A reading keeps only what its function makes of the
    output, with no graph. Without taps no graph is built at all.
    """
    recorded = Recorded()
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(bool(taps)))
        # Readings first: a tap hands on a copy, which they need not see.
        for name, read in (readings or {}).items():
            hook = network.get_submodule(name).register_forward_hook(_reader(name, read, recorded))
            stack.callback(hook.remove)
        for name in taps:
            hook = network.get_submodule(name).register_forward_hook(_tapper(name, recorded))
            stack.callback(hook.remove)
        yield recorded


def _tapper(name: str, recorded: Recorded) -> Callable[..., Tensor]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        recorded.taps[name] = output
        # The network goes on with a copy: an in-place ReLU after the tap would change the record.
        return output.clone()

    return hook


def _reader(name: str, read: Reading, recorded: Recorded) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        with torch.no_grad():
            recorded.readings[name] = read(output).detach()

    return hook
