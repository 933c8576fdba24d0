"""Run a network from one of its layers on; the part before the layer runs only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.introspection.hooks import (
    find_module,
    list_parent_names,
    observe_modules,
    override_forward,
    rebuild_sequence,
    replace_output,
    select_output,
)


@dataclass(frozen=True, slots=True)
class _RecordedPass:
    """One image's pass: the layer's output, the logits, and outputs of modules called before."""

    network: nn.Module
    layer_name: str
    inputs: Tensor
    output: Any
    logits: Tensor
    outputs_before: Mapping[nn.Module, Tensor]

    def run_from_layer(
        self, stored_outputs: Mapping[nn.Module, Tensor], layer_outputs: Tensor
    ) -> Tensor:
        """Other outputs of the layer (n,...) -> logits (n,K); stored outputs are not recomputed."""
        count = len(layer_outputs)
        stored = {module: _expand_output(o, count) for module, o in stored_outputs.items()}
        # A copy: later modules may change it in place.
        tensor = layer_outputs.to(select_output(self.layer_name, self.output).dtype, copy=True)
        layer = find_module(self.network, self.layer_name)
        replaced = replace_output(self.layer_name, _expand_output(self.output, count), tensor)
        with _replace_outputs({**stored, layer: replaced}):
            logits: Tensor = self.network(self.inputs.expand(count, *self.inputs.shape[1:]))
        return logits

    def can_reuse_outputs(self) -> bool:
        """Whether the logits come back when the layer's own output is put in its place."""
        part = select_output(self.layer_name, self.output)
        twice = part.repeat(2, *[1] * (part.ndim - 1))
        try:
            logits = self.run_from_layer(self.outputs_before, twice)
        except RuntimeError:  # a module changes in place the output that it gets
            return False
        is_low = any(t.dtype == torch.bfloat16 for t in (part, *self.outputs_before.values()))
        rtol, atol = (3e-2, 3e-2) if is_low else (1e-3, 1e-4)
        return torch.allclose(logits, self.logits.expand(2, -1), rtol=rtol, atol=atol)


@torch.no_grad()
def create_partial_forward(
    network: nn.Module, layer_name: str, inputs: Tensor
) -> Callable[[Tensor], Tensor]:
    """Create a function that runs a network from a layer on: its outputs (n,...) -> logits (n,K).

    `inputs` (1,3,H,W) is the image whose outputs are replaced. Modules that are called once, and
    before the layer, return what they computed for it. If the logits do not come back that way,
    everything runs again and only the layer's output is replaced.
    """
    recorded = _record_before_layer(network, layer_name, inputs)
    stored = recorded.outputs_before if recorded.can_reuse_outputs() else {}
    return torch.no_grad()(partial(recorded.run_from_layer, stored))


def _record_before_layer(network: nn.Module, layer_name: str, inputs: Tensor) -> _RecordedPass:
    """Record one pass. Of nested modules the outermost are kept that do not hold the layer."""
    layer = find_module(network, layer_name)
    parents = [network, *(network.get_submodule(p) for p in list_parent_names(layer_name))]
    beside = [m for parent in parents for m in parent.children() if m not in (layer, *parents)]
    outputs: dict[nn.Module, list[Any]] = {module: [] for module in (*beside, layer)}
    call_order: list[nn.Module] = []

    def record_call(module: nn.Module, output: Any) -> None:
        outputs[module].append(output)
        call_order.append(module)

    with observe_modules(outputs, record_call):
        logits = network(inputs)
    earlier = set(call_order[: call_order.index(layer)])
    once = {m: outputs[m][0] for m in beside if m in earlier and len(outputs[m]) == 1}
    before = {m: output for m, output in once.items() if isinstance(output, Tensor)}
    return _RecordedPass(network, layer_name, inputs, outputs[layer][0], logits, before)


def _expand_output(output: Any, count: int) -> Any:
    """The output for one image, as `count` such images would have it."""
    if isinstance(output, Tensor):
        return output.expand(count, *output.shape[1:]) if output.shape[:1] == (1,) else output
    if isinstance(output, tuple | list):
        return rebuild_sequence(output, [_expand_output(part, count) for part in output])
    return output


@contextmanager
def _replace_outputs(outputs: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Inside the context, each module only returns the output that is given for it."""
    with ExitStack() as stack:
        for module, output in outputs.items():
            stack.enter_context(override_forward(module, partial(_return_stored, output)))
        yield


def _return_stored(output: Any, *_inputs: Any, **_keywords: Any) -> Any:
    return output
