"""Hooks and replaced forward functions: camcli makes all of them here.

Each context manager removes its hooks when it ends, also after an exception.
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

from camcli.core.layer_names import parse_layer_name

ForwardHook = Callable[[Any, tuple[Any, ...], Any], Any]
OutputCallback = Callable[[str, Any], None]
TensorFunction = Callable[[Tensor], Tensor]
BackwardRule = Callable[[Any, tuple[Any, ...], Tensor], Tensor]


@contextmanager
def add_forward_hooks(hooks: Iterable[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """Inside the context each module has its hook; hooks of one module run in the order given."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@dataclass(frozen=True, slots=True)
class Recording:
    """The outputs that a forward pass leaves: in its autograd graph, copied, or reduced."""

    graph_outputs: dict[str, Tensor] = field(default_factory=dict)
    copied_outputs: dict[str, Tensor] = field(default_factory=dict)
    reduced_outputs: dict[str, Tensor] = field(default_factory=dict)

    def get_output(self, name: str) -> Tensor:
        """The output of a layer, in the graph if it was recorded there, else the copy."""
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
    """Record outputs of layers in every forward pass inside the context.

    `graph_layers` are recorded in the autograd graph. The graph starts at the first of them, so
    that autograd stores nothing before it. `copied_layers` are recorded as copies outside the
    graph, and for `reducers` only the result of the function. Without graph layers there is no
    graph, unless `build_graph` asks for one, which starts at the input.
    """
    recording = Recording()
    hooks = [
        # Reducers come first: a graph hook replaces the output, and they read the original.
        *(
            (name, _create_reducer_hook(name, reduce, recording.reduced_outputs))
            for name, reduce in (reducers or {}).items()
        ),
        *(
            (name, _create_reducer_hook(name, Tensor.clone, recording.copied_outputs))
            for name in dict.fromkeys(copied_layers)
        ),
        *((name, _create_graph_hook(name, recording.graph_outputs)) for name in graph_layers),
    ]
    with (
        torch.set_grad_enabled(build_graph or bool(graph_layers)),
        add_forward_hooks((find_module(network, name), hook) for name, hook in hooks),
    ):
        yield recording


def _create_graph_hook(name: str, graph_outputs: dict[str, Tensor]) -> ForwardHook:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        tensor = select_output(name, output)
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
        graph_outputs[name] = tensor
        # The network gets a copy: an in-place ReLU after the layer would change the record.
        return replace_output(name, output, tensor.clone())

    return hook


def _create_reducer_hook(
    name: str, reduce_output: TensorFunction, reduced_outputs: dict[str, Tensor]
) -> ForwardHook:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = select_output(name, output)
        # Reducers compute on maps in float32, even if the network runs in lower precision.
        with torch.no_grad(), torch.autocast(tensor.device.type, enabled=False):
            reduced_outputs[name] = reduce_output(tensor.float()).detach()

    return hook


def find_module(network: nn.Module, name: str) -> nn.Module:
    """Find the module of a layer. Raises AttributeError if no module has the name."""
    return network.get_submodule(parse_layer_name(name).module)


def list_parent_names(name: str) -> list[str]:
    """The names of the modules around a module, the outermost first, without the network itself."""
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def compute_gradients(
    score: Tensor, tensors: Sequence[Tensor], *, retain_graph: bool = False
) -> Sequence[Tensor]:
    """Compute the gradients of a score; zeros if the network computes without gradients.

    `retain_graph` keeps the graph for another backward pass.
    """
    if not score.requires_grad:
        return [torch.zeros_like(tensor) for tensor in tensors]
    return torch.autograd.grad(score, tensors, retain_graph=retain_graph, materialize_grads=True)


def select_output(name: str, output: Any) -> Tensor:
    """The tensor of a layer in the output of its module."""
    index = parse_layer_name(name).output_index
    tensor: Tensor = output if index is None else output[index]
    return tensor


def replace_output(name: str, output: Any, tensor: Tensor) -> Any:
    """The output of a module with another tensor in place of a layer's."""
    index = parse_layer_name(name).output_index
    if index is None:
        return tensor
    return rebuild_sequence(
        output, [tensor if n == index else other for n, other in enumerate(output)]
    )


def rebuild_sequence(output: Any, parts: list[Any]) -> Any:
    """A tuple, named tuple or list of the same type with other parts."""
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


@contextmanager
def wrap_calls(
    module: nn.Module,
    create_context: Callable[[], AbstractContextManager[Any]],
    convert_input: TensorFunction = lambda inputs: inputs,
) -> Iterator[None]:
    """Inside the context, each call of a module runs in a context of its own.

    `convert_input` converts the tensors among the inputs first.
    """
    entered: list[AbstractContextManager[Any]] = []

    def enter(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        entered.append(create_context())
        entered[-1].__enter__()
        return tuple(convert_input(each) if isinstance(each, Tensor) else each for each in inputs)

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        entered.pop().__exit__(None, None, None)

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


def observe_all_modules(
    network: nn.Module, callback: OutputCallback
) -> AbstractContextManager[None]:
    """Inside the context, call `callback(name, output)` after each call of any inner module."""

    def notify(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        callback(name, output)

    return add_forward_hooks(
        (module, partial(notify, name)) for name, module in network.named_modules() if name
    )


def observe_modules(
    modules: Iterable[nn.Module], callback: Callable[[nn.Module, Any], None]
) -> AbstractContextManager[None]:
    """Inside the context, call `callback(module, output)` after each call of these modules."""

    def notify(module: nn.Module, _inputs: Any, output: Any) -> None:
        callback(module, output)

    return add_forward_hooks((module, notify) for module in modules)


def apply_backward_rules(
    network: nn.Module, rules: Mapping[str, BackwardRule]
) -> AbstractContextManager[None]:
    """Inside the context, a rule computes a module's output again from its inputs and output."""
    return add_forward_hooks((find_module(network, name), rule) for name, rule in rules.items())


@torch.no_grad()
def find_handoffs(
    network: nn.Module,
    inputs: Tensor,
    producer_types: tuple[type, ...],
    consumer_types: tuple[type, ...],
) -> tuple[list[tuple[str, str]], Any]:
    """Find pairs (producer, consumer) of module names: one reads the output of the other.

    The types must match exactly, and both modules must be called just once. Returns the pairs and
    the output of the network.
    """
    makers: dict[int, tuple[str, Tensor]] = {}  # keeps the tensor, so that its id stays unique
    found: list[tuple[str, str]] = []
    calls: Counter[str] = Counter()

    def observe(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[name] += 1
        if type(module) in producer_types and isinstance(output, Tensor):
            makers[id(output)] = (name, output)
        elif inputs and id(inputs[0]) in makers:
            found.append((makers[id(inputs[0])][0], name))

    types = (*producer_types, *consumer_types)
    with add_forward_hooks(
        (module, partial(observe, name))
        for name, module in network.named_modules()
        if type(module) in types
    ):
        output = network(inputs)
    return [(a, b) for a, b in found if calls[a] == calls[b] == 1], output


@contextmanager
def override_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside the context a module runs another forward function; its hooks stay."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if before is not None:
            module.forward = before


def convert_output(network: nn.Module, convert: Callable[[Any], Any]) -> None:
    """Convert all later outputs of a network. The hook stays: only for camcli's own networks."""
    network.register_forward_hook(lambda _module, _inputs, output: convert(output))
