"""Copy a network so that camcli can freeze and hook the copy, and the original stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import ModelError


def copy_network(name: str, network: nn.Module, device: torch.device) -> nn.Module:
    """Return a frozen copy of a network on a device; the network itself does not change.

    The copy shares the storage of the weights where neither the device nor the memory format
    changes. If one weight has to be copied then all are, so that the copy never mixes weights from
    before and after a training step. Raises ModelError if the network cannot be copied.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(
            f"{name} is a TorchScript program with hidden layers; give the Python network, "
            f"or save the program and load it as program:FILE"
        )
    try:
        # The memo maps the id of each tensor to the tensor that takes its place in the copy.
        memo = {id(t): _copy_tensor(t) for m in network.modules() for t in _iter_tensors(vars(m))}
        copied = deepcopy(network, memo)
    except Exception as error:  # the code of a network may be a user's own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"{name} cannot be copied ({reason}); remove this part, or pass copy=False: "
            f"camcli then freezes and changes the network itself"
        ) from error
    freeze_network(copied, device)
    _copy_shared_weights(copied, network)
    return copied


def freeze_network(network: nn.Module, device: torch.device) -> None:
    """Prepare a network in place: no gradients, eval mode, float32, device and memory format."""
    network.requires_grad_(False)
    network.eval()
    if any(
        t.is_floating_point() and t.dtype != torch.float32 for t in network.state_dict().values()
    ):
        network.float()  # images and maps are float32
    network.to(device)
    if device.type == "cpu":  # channels last is up to twice as fast there
        network.to(memory_format=torch.channels_last)


def _iter_tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in the attributes of a module, also in dicts and lists; not those of children."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _iter_tensors(part)


def _copy_tensor(tensor: Tensor) -> Tensor:
    """A weight shares its storage; anything else is copied, because a forward pass may write to it.

    `detach` also makes tensors copyable that autograd computed, such as weights under weight_norm.
    """
    if nn.parameter.is_lazy(tensor):
        raise ValueError("its weights are not initialized; run it on one image first")
    if type(tensor) is nn.Parameter:
        shared = tensor.clone() if tensor.is_inference() else tensor.detach()
        return nn.Parameter(shared, requires_grad=False)
    return deepcopy(tensor) if isinstance(tensor, nn.Parameter) else tensor.detach().clone()


def _copy_shared_weights(copied: nn.Module, original: nn.Module) -> None:
    """Copy the weights that are still shared, if others are not shared any more."""
    pairs = list(zip(copied.parameters(), original.parameters(), strict=True))
    shared = [new for new, old in pairs if new.data_ptr() == old.data_ptr()]
    if len(shared) < len(pairs):
        for parameter in shared:
            parameter.data = parameter.data.clone()
