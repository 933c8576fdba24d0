"""torch.compile for the parts of a network between the layers that are read. No formulas."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from camcli.core.errors import UsageError
from camcli.engine.acceleration.precision import list_classifier_names
from camcli.engine.providers.registry import list_hooked_names
from camcli.engine.request import Request
from camcli.models.introspection.hooks import list_parent_names, override_forward
from camcli.models.model import Model


@contextmanager
def compile_network(model: Model, requests: Sequence[Request]) -> Iterator[None]:
    """Inside the context the network runs compiled, but for what hooks must see.

    Those modules run compiled that have no hooks inside, the outermost of them; the others run as
    they are, from part to part, so that every hook lies between compiled parts. Raises UsageError
    where torch cannot compile.
    """
    read = {*list_hooked_names(requests), *list_classifier_names(model)}
    opened = {"", *(parent for name in read for parent in list_parent_names(name))}
    with ExitStack() as stack:
        for module in _iter_compilable_modules(model.network, "", opened):
            stack.enter_context(override_forward(module, torch.compile(module.forward)))
        try:
            yield
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f"--compile: torch cannot compile {model.name}: {reason}") from error


def _iter_compilable_modules(
    module: nn.Module, name: str, parent_names: Collection[str]
) -> Iterator[nn.Module]:
    """The outermost modules that have no hooks inside, and that are called: lists are not."""
    if name not in parent_names and type(module).forward is not nn.Module.forward:
        yield module
        return
    for own, child in module.named_children():
        yield from _iter_compilable_modules(child, f"{name}.{own}" if name else own, parent_names)
