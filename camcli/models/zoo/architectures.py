"""Networks by name, still without pretrained weights."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from camcli.core.errors import ModelError
from camcli.models.zoo.libraries import find_library
from camcli.models.zoo.library import BUILD_ERRORS, LoadedNetwork, Size
from camcli.models.zoo.memory import check_memory


def create_untrained(name: str, size: Size | None, channel_count: int = 3) -> LoadedNetwork:
    """A network with random weights, to show its structure. A built-in network has its weights."""
    options = {} if channel_count == 3 else {"in_chans": channel_count}
    library = find_library(name)
    if library.ships_weights:
        return library.load_pretrained(name, size)
    library.check_name(name)
    network = _randomize_zero_weights(create_network(name, size, **options))
    return LoadedNetwork(name, network, library.find_transform(name, size, network))


def _randomize_zero_weights(network: nn.Module) -> nn.Module:
    """Replace zeros in classifiers and scales: behind them every gradient would be zero."""
    for name, parameter in network.named_parameters():
        if not parameter.any() and parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
        elif not parameter.any() and "bias" not in name.rpartition(".")[2]:
            nn.init.ones_(parameter)
    return network


def create_network(name: str, size: Size | None, **options: Any) -> nn.Module:
    """A network with the weights that its constructor gives it, built for this input size.

    Raises ModelError for a network that cannot be built or does not fit into memory.
    """
    library = find_library(name)
    create = partial(library.create, name, size, **options)
    try:
        if library.creates_offline:
            check_memory(name, create)
        return create()
    except BUILD_ERRORS as error:
        wanted = f" for a {size[0]}x{size[1]} input" if size else ""
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{name} cannot be built{wanted}: {reason}") from None
