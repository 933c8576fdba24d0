"""The only hooks in the program: from layer names to tensors. Knows not what they are for.

A layer is a module's name; `name[1]` is the second of the tensors that a module hands on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Seen = Callable[[str, Any], None]
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
            hook = module(network, name).register_forward_hook(_reader(name, read, kept))
            stack.callback(hook.remove)
        for name in taps:
            hook = module(network, name).register_forward_hook(_tapper(name, recorded))
            stack.callback(hook.remove)
        yield recorded


def module(network: nn.Module, name: str) -> nn.Module:
    """The module of a layer. Raises AttributeError where there is none."""
    return network.get_submodule(name.partition("[")[0])


def parents(name: str) -> list[str]:
    """The modules that hold a module, the outermost first; the network itself left out."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def slopes(score: Tensor, sources: Sequence[Tensor], *, keep: bool = False) -> Sequence[Tensor]:
    """The gradient of a score by each source: zeros where the network keeps gradients to itself.

    `keep` leaves the graph for another pass.
    """
    if not score.requires_grad:
        return [torch.zeros_like(source) for source in sources]
    return torch.autograd.grad(score, sources, retain_graph=keep, materialize_grads=True)


def _place(name: str) -> int | None:
    """Which of a module's tensors a layer is; None where there is but one."""
    _, bracket, rest = name.partition("[")
    return int(rest[:-1]) if bracket else None


def part_of(name: str, output: Any) -> Tensor:
    """The tensor that a layer is, of what its module hands on."""
    place = _place(name)
    part: Tensor = output if place is None else output[place]
    return part


def with_part(name: str, output: Any, part: Tensor) -> Any:
    """What a module hands on, with another tensor in a layer's place."""
    place = _place(name)
    if place is None:
        return part
    return like(output, [part if n == place else other for n, other in enumerate(output)])


def like(output: Any, parts: list[Any]) -> Any:
    """A tuple or list of the same kind; a named one takes its parts one by one."""
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def _tapper(name: str, recorded: Recorded) -> Callable[..., Any]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        part = part_of(name, output)
        if not part.requires_grad:
            part = part.detach().requires_grad_()
        recorded.taps[name] = part
        # The network goes on with a copy: an in-place ReLU after the tap would change the record.
        return with_part(name, output, part.clone())

    return hook


def _reader(name: str, read: Reading, kept: dict[str, Tensor]) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        part = part_of(name, output)
        # In full, whatever precision the network runs in: what is read is arithmetic on maps.
        with torch.no_grad(), torch.autocast(part.device.type, enabled=False):
            kept[name] = read(part.float()).detach()

    return hook


@contextmanager
def within(
    module: nn.Module,
    enter: Callable[[], AbstractContextManager[Any]],
    given: Reading = lambda inputs: inputs,
) -> Iterator[None]:
    """Inside this context, each call of a module is made in a context of its own.

    `given` makes its inputs what they are to be there.
    """
    entered: list[AbstractContextManager[Any]] = []

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered.append(enter())
        entered[-1].__enter__()
        return tuple(given(each) if isinstance(each, Tensor) else each for each in inputs)

    def after(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        entered.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(before).remove)
        stack.callback(module.register_forward_hook(after, always_call=True).remove)
        yield


@contextmanager
def watched(network: nn.Module, see: Seen) -> Iterator[None]:
    """Inside the context `see` is shown what every module hands on, the innermost first."""
    with ExitStack() as stack:
        for name, inner in network.named_modules():
            if name:
                hook = partial(_shown, see, name)
                stack.callback(inner.register_forward_hook(hook).remove)
        yield


def _shown(see: Seen, name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
    see(name, output)


@torch.no_grad()
def handed(
    network: nn.Module, inputs: Tensor, first: tuple[type, ...], then: tuple[type, ...]
) -> tuple[list[tuple[str, str]], Any]:
    """Which modules of exactly those types hand their output on to one of these, by name.

    Of modules that are called once; and what the network answers.
    """
    makers: dict[int, tuple[str, Tensor]] = {}  # with the tensor: no other then has its id
    found: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def see(name: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        calls[name] += 1
        if type(module) in first and isinstance(output, Tensor):
            makers[id(output)] = (name, output)
        elif given and id(given[0]) in makers:
            found.append((makers[id(given[0])][0], name))

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if type(module) in (*first, *then):
                stack.callback(module.register_forward_hook(partial(see, name)).remove)
        answer = network(inputs)
    return [(a, b) for a, b in found if calls[a] == calls[b] == 1], answer


@contextmanager
def noted(modules: Iterable[nn.Module], see: Callable[[nn.Module, Any], None]) -> Iterator[None]:
    """Inside the context `see` is shown what some modules hand on, call by call."""
    with ExitStack() as stack:
        for each in modules:
            hook = each.register_forward_hook(lambda module, _, output: see(module, output))
            stack.callback(hook.remove)
        yield


@contextmanager
def rewired(network: nn.Module, rules: Mapping[str, Rule]) -> Iterator[None]:
    """Inside the context, what a rule makes of a module's inputs and output takes its place."""
    with ExitStack() as stack:
        for name, rule in rules.items():
            stack.callback(module(network, name).register_forward_hook(rule).remove)
        yield


@contextmanager
def substituted(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside the context a module does something else; its hooks stay."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
