"""Random weights, part by part: the entries of each parameter in another order."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class NetworkPart:
    """Parameters that are shuffled together, such as `blocks.3`; `names` are theirs."""

    name: str
    names: tuple[str, ...]


def list_network_parts(network: nn.Module) -> list[NetworkPart]:
    """The parts of a network from the classifier down to the stem.

    A part is a child of the network, or an entry of a child that is a list of blocks. Parameters
    of the network itself, such as tokens, belong to the stem; what lies between the last block and
    the classifier is one part.
    """
    groups: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        groups.setdefault(_find_group(network, name), []).append(name)
    own = groups.pop("", [])
    parts = [NetworkPart(name, tuple(names)) for name, names in groups.items()]
    parts = _join_tail(network, parts)
    if parts and own:
        parts[0] = NetworkPart(parts[0].name, (*own, *parts[0].names))
    return parts[::-1]


def _find_group(network: nn.Module, parameter: str) -> str:
    first, *rest = parameter.split(".")
    if not rest:
        return ""
    child = getattr(network, first)
    is_list = isinstance(child, nn.Sequential | nn.ModuleList) and not first[-1].isdigit()
    return f"{first}.{rest[0]}" if is_list and len(rest) > 1 else first


def _join_tail(network: nn.Module, parts: Sequence[NetworkPart]) -> list[NetworkPart]:
    """Join the parts between the last block and the classifier, and those before the first."""
    blocks = [n for n, part in enumerate(parts) if _is_block(part.name)]
    if not blocks:
        return list(parts)
    first, last = blocks[0], blocks[-1]
    joined = (parts[:first], *([part] for part in parts[first : last + 1]), parts[last + 1 : -1])
    kept = [_join_parts(group) for group in joined if group]
    return [*kept, parts[-1]] if last + 1 < len(parts) else kept


def _is_block(name: str) -> bool:
    """Whether a part is one of several: `blocks.3`, `layer4`."""
    return name[-1].isdigit() and name.rstrip("0123456789").rstrip(".") not in (
        "conv",
        "bn",
        "norm",
    )


def _join_parts(parts: Sequence[NetworkPart]) -> NetworkPart:
    name = "+".join(part.name for part in parts)
    return NetworkPart(name, tuple(name for part in parts for name in part.names))


@contextmanager
def shuffle_weights(network: nn.Module, parts: Sequence[NetworkPart], seed: int) -> Iterator[None]:
    """Inside the context, the parameters of some parts are shuffled.

    The values of each tensor stay the same, so that scales and batch norm statistics fit. The
    parameters themselves are put back afterwards, also after an interrupt.
    """
    names = [name for part in parts for name in part.names]
    saved = {name: network.get_parameter(name) for name in names}
    try:
        for name in names:
            _set_parameter(network, name, _shuffle(saved[name], name, seed))
        yield
    finally:
        for name, parameter in saved.items():
            _set_parameter(network, name, parameter)


def _set_parameter(network: nn.Module, name: str, parameter: nn.Parameter) -> None:
    module_name, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(module_name), attribute, parameter)


def _shuffle(parameter: nn.Parameter, name: str, seed: int) -> nn.Parameter:
    generator = torch.Generator().manual_seed(seed * 2**32 + zlib.crc32(name.encode()))
    order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
    shuffled = torch.empty_like(parameter).copy_(
        parameter.detach().flatten()[order].reshape(parameter.shape)
    )
    return nn.Parameter(shuffled, requires_grad=parameter.requires_grad)
