"""The only hooks in the program: from layer names to tensors. Knows not what they are for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Reading = Callable[[Tensor], Tensor]
Rule = Callable[[Any, tuple[Any, ...], Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a forward pass left behind: tapped outputs in its graph; copies and readings outside."""

    taps: dict[str, Tensor] = field(default_factory=dict)
    copies: dict[str, Tensor] = field(default_factory=dict)
    readings: dict[str, Tensor] = field(default_factory=dict)

    def output(self, name: str) -> Tensor:
        """A layer's output, however it was recorded."""
        return self.taps[name] if name in self.taps else self.copies[name]


@contextmanager
def record(
    network: nn.Module,
    taps: Collection[str] = (),
    readings: Mapping[str, Reading] | None = None,
    copies: Collection[str] = (),
    *,
    graph: bool = False,
) -> Iterator[Recorded]:
    """Record layers of every forward pass inside the context; all hooks go when it ends.

    A tap keeps the layer's output where autograd can reach it; the graph starts at the shallowest
    one, so nothing before it is stored. A copy keeps the output, and a reading only what its
    function makes of it, with no graph. Without taps no graph is built at all, unless `graph` asks
    for one, from inputs that want gradients.
    """
    recorded = Recorded()
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(graph or bool(taps)))
        # Readings first: a tap hands on a copy, which they need not see.
        reading = {name: (recorded.readings, read) for name, read in (readings or {}).items()}
        copying = dict.fromkeys(copies, (recorded.copies, Tensor.clone))
        for name, (kept, read) in (*reading.items(), *copying.items()):
            hook = network.get_submodule(name).register_forward_hook(_reader(name, read, kept))
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


def _reader(name: str, read: Reading, kept: dict[str, Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        with torch.no_grad():
            kept[name] = read(output).detach()

    return hook


@contextmanager
def rewired(network: nn.Module, rules: Mapping[str, Rule]) -> Iterator[None]:
    """Inside the context, what a rule makes of a module's inputs and output takes its place."""
    with ExitStack() as stack:
        for name, rule in rules.items():
            stack.callback(network.get_submodule(name).register_forward_hook(rule).remove)
        yield


@contextmanager
def resumed(network: nn.Module, name: str, inputs: Tensor) -> Iterator[Callable[[Tensor], Tensor]]:
    """Run a network from one of its layers on: outputs of the layer (n,...) -> logits (n,K).

    `inputs` (1,3,H,W) is what the layer's other outputs are about. Whatever is done before the
    layer is done once: modules that were called before it, and only then, hand out what they
    found. Where that does not give the logits back, everything runs again, and only the layer is
    replaced.
    """
    layer = network.get_submodule(name)
    with torch.no_grad():
        found, output, logits = _before(network, name, inputs)

        def run(known: Mapping[nn.Module, Tensor], outputs: Tensor) -> Tensor:
            count = len(outputs)
            spread = {module: o.expand(count, *o.shape[1:]) for module, o in known.items()}
            # A copy: what comes after may change it in place.
            with _replaced({**spread, layer: outputs.clone()}):
                answer: Tensor = network(inputs.expand(count, *inputs.shape[1:]))
            return answer

        try:
            again = run(found, output.repeat(2, *[1] * (output.ndim - 1)))
            same = torch.allclose(again, logits.expand(2, -1), rtol=1e-3, atol=1e-4)
        except RuntimeError:  # something changes in place what it was handed
            same = False
        yield partial(run, found if same else {})


def _before(
    network: nn.Module, name: str, inputs: Tensor
) -> tuple[dict[nn.Module, Tensor], Tensor, Tensor]:
    """What each module found that was done, once, before a layer was; the layer's output; logits.

    Of modules inside one another it is the outermost: the children of those that hold the layer.
    """
    layer = network.get_submodule(name)
    holding = [network, *(network.get_submodule(p) for p in _parents(name))]
    beside = [m for parent in holding for m in parent.children() if m not in (layer, *holding)]
    calls: dict[nn.Module, list[Any]] = {module: [] for module in (*beside, layer)}
    done: list[nn.Module] = []

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[module].append(output)
        done.append(module)

    with ExitStack() as stack:
        for module in calls:
            stack.callback(module.register_forward_hook(note).remove)
        logits = network(inputs)
    earlier = set(done[: done.index(layer)])
    kept = {m: calls[m][0] for m in beside if m in earlier and len(calls[m]) == 1}
    return (
        {m: output for m, output in kept.items() if isinstance(output, Tensor)},
        calls[layer][0],
        logits,
    )


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:n]) for n in range(1, len(parts)))


@contextmanager
def _replaced(outputs: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """Modules that do nothing but hand out what they are given here."""
    with ExitStack() as stack:
        for module, output in outputs.items():
            stack.callback(vars(module).pop, "forward")
            module.forward = partial(_handed_out, output)
        yield


def _handed_out(output: Tensor, *_inputs: Any, **_named: Any) -> Tensor:
    return output
