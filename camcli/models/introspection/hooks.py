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

OutputCallback = Callable[[str, Any], None]
TensorFunction = Callable[[Tensor], Tensor]
BackwardRule = Callable[[Any, tuple[Any, ...], Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a forward pass left behind: tapped outputs in its graph; copies and readings outside."""

    graph_outputs: dict[str, Tensor] = field(default_factory=dict)
    copied_outputs: dict[str, Tensor] = field(default_factory=dict)
    reduced_outputs: dict[str, Tensor] = field(default_factory=dict)

    def get_output(self, name: str) -> Tensor:
        """A layer's output, however it was recorded."""
        return self.graph_outputs[name] if name in self.graph_outputs else self.copied_outputs[name]


@contextmanager
def record_outputs(
    network: nn.Module,
    graph_layers: Collection[str] = (),
    reducers: Mapping[str, TensorFunction] | None = None,
    copied_layers: Collection[str] = (),
    *,
    build_graph: bool = False,
) -> Iterator[Recording]:
    """Record layers of every forward pass inside the context; all hooks go when it ends.

    A tap keeps the layer's output where autograd can reach it; the graph starts at the shallowest
    one, so nothing before it is stored. A copy keeps the output, and a reading only what its
    function makes of it, with no graph. Without taps no graph is built at all, unless `graph` asks
    for one, from inputs that want gradients.
    """
    recorded = Recording()
    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(build_graph or bool(graph_layers)))
        # Readings first: a tap hands on a copy, which they need not see.
        reading = {
            name: (recorded.reduced_outputs, read) for name, read in (reducers or {}).items()
        }
        copying = dict.fromkeys(copied_layers, (recorded.copied_outputs, Tensor.clone))
        for name, (kept, read) in (*reading.items(), *copying.items()):
            hook = find_module(network, name).register_forward_hook(
                _create_reducer_hook(name, read, kept)
            )
            stack.callback(hook.remove)
        for name in graph_layers:
            hook = find_module(network, name).register_forward_hook(
                _create_graph_hook(name, recorded)
            )
            stack.callback(hook.remove)
        yield recorded


def find_module(network: nn.Module, name: str) -> nn.Module:
    """The module of a layer. Raises AttributeError where there is none."""
    return network.get_submodule(name.partition("[")[0])


def list_parent_names(name: str) -> list[str]:
    """The modules that hold a module, the outermost first; the network itself left out."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def compute_gradients(
    score: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = False
) -> Sequence[Tensor]:
    """The gradient of a score by each source: zeros where the network keeps gradients to itself.

    `keep` leaves the graph for another pass.
    """
    if not score.requires_grad:
        return [torch.zeros_like(source) for source in tensors]
    return torch.autograd.grad(score, tensors, retain_graph=retain_graph, materialize_grads=True)


def _parse_output_index(name: str) -> int | None:
    """Which of a module's tensors a layer is; None where there is but one."""
    _, bracket, rest = name.partition("[")
    return int(rest[:-1]) if bracket else None


def select_output(name: str, output: Any) -> Tensor:
    """The tensor that a layer is, of what its module hands on."""
    place = _parse_output_index(name)
    part: Tensor = output if place is None else output[place]
    return part


def replace_output(name: str, output: Any, part: Tensor) -> Any:
    """What a module hands on, with another tensor in a layer's place."""
    place = _parse_output_index(name)
    if place is None:
        return part
    return rebuild_sequence(
        output, [part if n == place else other for n, other in enumerate(output)]
    )


def rebuild_sequence(output: Any, parts: list[Any]) -> Any:
    """A tuple or list of the same kind; a named one takes its parts one by one."""
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def _create_graph_hook(name: str, recorded: Recording) -> Callable[..., Any]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        part = select_output(name, output)
        if not part.requires_grad:
            part = part.detach().requires_grad_()
        recorded.graph_outputs[name] = part
        # The network goes on with a copy: an in-place ReLU after the tap would change the record.
        return replace_output(name, output, part.clone())

    return hook


def _create_reducer_hook(
    name: str, reduce_output: TensorFunction, reduced_outputs: dict[str, Tensor]
) -> Callable[..., None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        part = select_output(name, output)
        # In full, whatever precision the network runs in: what is read is arithmetic on maps.
        with torch.no_grad(), torch.autocast(part.device.type, enabled=False):
            reduced_outputs[name] = reduce_output(part.float()).detach()

    return hook


@contextmanager
def wrap_calls(
    module: nn.Module,
    create_context: Callable[[], AbstractContextManager[Any]],
    convert_input: TensorFunction = lambda inputs: inputs,
) -> Iterator[None]:
    """Inside this context, each call of a module is made in a context of its own.

    `given` makes its inputs what they are to be there.
    """
    entered: list[AbstractContextManager[Any]] = []

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered.append(create_context())
        entered[-1].__enter__()
        return tuple(convert_input(each) if isinstance(each, Tensor) else each for each in inputs)

    def after(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        entered.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(before).remove)
        stack.callback(module.register_forward_hook(after, always_call=True).remove)
        yield


@contextmanager
def observe_all_modules(network: nn.Module, callback: OutputCallback) -> Iterator[None]:
    """Inside the context `see` is shown what every module hands on, the innermost first."""
    with ExitStack() as stack:
        for name, inner in network.named_modules():
            if name:
                hook = partial(_notify_callback, callback, name)
                stack.callback(inner.register_forward_hook(hook).remove)
        yield


def _notify_callback(
    callback: OutputCallback, name: str, _module: nn.Module, _inputs: Any, output: Any
) -> None:
    callback(name, output)


@torch.no_grad()
def find_handoffs(
    network: nn.Module,
    inputs: Tensor,
    producer_types: tuple[type, ...],
    consumer_types: tuple[type, ...],
) -> tuple[list[tuple[str, str]], Any]:
    """Which modules of exactly those types hand their output on to one of these, by name.

    Of modules that are called once; and what the network answers.
    """
    makers: dict[int, tuple[str, Tensor]] = {}  # with the tensor: no other then has its id
    found: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def see(name: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        calls[name] += 1
        if type(module) in producer_types and isinstance(output, Tensor):
            makers[id(output)] = (name, output)
        elif given and id(given[0]) in makers:
            found.append((makers[id(given[0])][0], name))

    with ExitStack() as stack:
        for name, module in network.named_modules():
            if type(module) in (*producer_types, *consumer_types):
                stack.callback(module.register_forward_hook(partial(see, name)).remove)
        answer = network(inputs)
    return [(a, b) for a, b in found if calls[a] == calls[b] == 1], answer


@contextmanager
def observe_modules(
    modules: Iterable[nn.Module], callback: Callable[[nn.Module, Any], None]
) -> Iterator[None]:
    """Inside the context `see` is shown what some modules hand on, call by call."""
    with ExitStack() as stack:
        for each in modules:
            hook = each.register_forward_hook(lambda module, _, output: callback(module, output))
            stack.callback(hook.remove)
        yield


@contextmanager
def apply_backward_rules(network: nn.Module, rules: Mapping[str, BackwardRule]) -> Iterator[None]:
    """Inside the context, what a rule makes of a module's inputs and output takes its place."""
    with ExitStack() as stack:
        for name, rule in rules.items():
            stack.callback(find_module(network, name).register_forward_hook(rule).remove)
        yield


def convert_output(network: nn.Module, convert: Callable[[Any], Any]) -> None:
    """Convert what a network returns, from now on: only for networks of camcli's own."""
    network.register_forward_hook(lambda _module, _inputs, output: convert(output))


@contextmanager
def override_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside the context a module does something else; its hooks stay."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before
