"""Use torch.compile for the parts of a network that have no hooks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from camcli.core.errors import UsageError
from camcli.engine.acceleration.precision import list_classifier_names
from camcli.engine.providers.provider_registry import gather_needs
from camcli.engine.request import Request
from camcli.models.introspection.hooks import list_parent_names, override_forward
from camcli.models.model import Model


@contextmanager
def compile_network(model: Model, requests: Sequence[Request]) -> Iterator[None]:
    """Inside the context, the network runs compiled between the modules that are hooked.

    The outermost modules without a hook inside are compiled; the modules around them run as they
    are, so that every hook lies between compiled parts. Raises UsageError if torch cannot compile.
    """
    hooked = {*gather_needs(requests).hooked_modules, *list_classifier_names(model)}
    opened = {"", *(parent for name in hooked for parent in list_parent_names(name))}
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
    """Yield the outermost modules without a hook inside, except lists, which are never called."""
    if name not in parent_names and type(module).forward is not nn.Module.forward:
        yield module
        return
    for own, child in module.named_children():
        yield from _iter_compilable_modules(child, f"{name}.{own}" if name else own, parent_names)
