"""Run a network from one of its layers on: what comes before is done once. Knows no methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
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


@contextmanager
def prepare_partial_forward(
    network: nn.Module, name: str, inputs: Tensor
) -> Iterator[Callable[[Tensor], Tensor]]:
    """Run a network from one of its layers on: outputs of the layer (n,...) -> logits (n,K).

    `inputs` (1,3,H,W) is what the layer's other outputs are about. Whatever is done before the
    layer is done once: modules that were called before it, and only then, hand out what they
    found. Where that does not give the logits back, everything runs again, and only the layer is
    replaced.
    """
    layer = find_module(network, name)
    with torch.no_grad():
        found, output, logits = _record_before_layer(network, name, inputs)

        def run_from_layer(stored_outputs: Mapping[nn.Module, Tensor], outputs: Tensor) -> Tensor:
            count = len(outputs)
            spread = {each: _expand_output(o, count) for each, o in stored_outputs.items()}
            # A copy: what comes after may change it in place.
            native = outputs.to(select_output(name, output).dtype, copy=True)
            given = replace_output(name, _expand_output(output, count), native)
            with _replace_outputs({**spread, layer: given}):
                answer: Tensor = network(inputs.expand(count, *inputs.shape[1:]))
            return answer

        try:
            part = select_output(name, output)
            again = run_from_layer(found, part.repeat(2, *[1] * (part.ndim - 1)))
            low = any(t.dtype == torch.bfloat16 for t in (part, *found.values()))
            rtol, atol = (3e-2, 3e-2) if low else (1e-3, 1e-4)
            same = torch.allclose(again, logits.expand(2, -1), rtol=rtol, atol=atol)
        except RuntimeError:  # something changes in place what it was handed
            same = False
        yield partial(run_from_layer, found if same else {})


def _record_before_layer(
    network: nn.Module, name: str, inputs: Tensor
) -> tuple[dict[nn.Module, Tensor], Any, Tensor]:
    """What each module found that was done, once, before a layer was; the layer's output; logits.

    Of modules inside one another it is the outermost: the children of those that hold the layer.
    """
    layer = find_module(network, name)
    holding = [network, *(network.get_submodule(p) for p in list_parent_names(name))]
    beside = [m for parent in holding for m in parent.children() if m not in (layer, *holding)]
    calls: dict[nn.Module, list[Any]] = {module: [] for module in (*beside, layer)}
    done: list[nn.Module] = []

    def record_call(each: nn.Module, output: Any) -> None:
        calls[each].append(output)
        done.append(each)

    with observe_modules(calls, record_call):
        logits = network(inputs)
    earlier = set(done[: done.index(layer)])
    kept = {m: calls[m][0] for m in beside if m in earlier and len(calls[m]) == 1}
    return (
        {m: output for m, output in kept.items() if isinstance(output, Tensor)},
        calls[layer][0],
        logits,
    )


def _expand_output(output: Any, count: int) -> Any:
    """What one image gave as what so many of it would give."""
    if isinstance(output, Tensor):
        return output.expand(count, *output.shape[1:]) if output.shape[:1] == (1,) else output
    if isinstance(output, tuple | list):
        return rebuild_sequence(output, [_expand_output(part, count) for part in output])
    return output


@contextmanager
def _replace_outputs(outputs: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Modules that do nothing but hand out what they are given here."""
    with ExitStack() as stack:
        for module, output in outputs.items():
            stack.enter_context(override_forward(module, partial(_return_stored, output)))
        yield


def _return_stored(output: Any, *_inputs: Any, **_named: Any) -> Any:
    return output
