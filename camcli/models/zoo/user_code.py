"""Networks from the user's own Python code, for `--model package.module:function` only."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from camcli.core.errors import ModelError, format_suggestion
from camcli.core.types import Transform
from camcli.models.zoo.checkpoints import align_keys, load_into_network, read_checkpoint
from camcli.models.zoo.library import DEFAULT_INPUT_SIZE, LoadedNetwork, Size
from camcli.models.zoo.metadata import find_transform_settings, read_metadata


def load_user_network(name: str, checkpoint: Path | None, size: Size | None) -> LoadedNetwork:
    """The network that `package.module:function` returns, with weights from a file if given.

    The transform is ImageNet's at 224, unless the network has a `pretrained_cfg`. Raises ModelError
    if the function cannot be imported or called, or does not return a network.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ModelError(f"--model {name}: write package.module:function")
    network = _call_network_factory(name, _find_member(_import_user_module(module), function, name))
    settings: dict[str, Any] = {}
    classes = None
    if checkpoint is not None:
        file = read_checkpoint(checkpoint)
        metadata = read_metadata(checkpoint, file.content)
        settings, classes = dict(metadata.transform_settings), metadata.class_names
        state = align_keys(file.load_state(), network)
        load_into_network(network, state, checkpoint, name)
    return LoadedNetwork(name, network, _find_user_transform(network, size, settings), classes)


def _import_user_module(module: str) -> ModuleType:
    """Import a module, also from the current folder as with `python -m`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):  # standard output is for data
            return import_module(module)
    except (Exception, SystemExit, GeneratorExit) as error:
        raise ModelError(
            f"{module} cannot be imported ({type(error).__name__}: {error}); for your own network "
            f"write package.module:function, as Python imports it from this folder"
        ) from error


def _find_member(module: ModuleType, function: str, name: str) -> Any:
    found = getattr(module, function, None)
    if found is None:
        near = format_suggestion(function, (n for n in vars(module) if not n.startswith("_")))
        raise ModelError(f"{name}: no {function!r} in {module.__name__}{near}")
    if not callable(found):
        raise ModelError(
            f"{name} has type {type(found).__name__}; it must be a function or a class"
        )
    return found


def _call_network_factory(name: str, maker: Any) -> nn.Module:
    if isinstance(maker, nn.Module):
        return maker
    try:
        with redirect_stdout(sys.stderr):
            network = maker()
    except (Exception, SystemExit, GeneratorExit) as error:
        raise ModelError(
            f"{name}() raised {type(error).__name__}: {error}; camcli calls it without arguments"
        ) from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ModelError(
            f"{name}() returned an object of type {kind}; it must return a torch.nn.Module"
        )
    return network


def _find_user_transform(
    network: nn.Module, size: Size | None, settings: dict[str, Any]
) -> Transform:
    config = getattr(network, "pretrained_cfg", None)
    own = config if isinstance(config, dict) else {}
    wanted = own.get("input_size")
    sides = (
        wanted[1:] if isinstance(wanted, tuple | list) and len(wanted) == 3 else DEFAULT_INPUT_SIZE
    )
    rows, cols = sides if all(isinstance(side, int) for side in sides) else DEFAULT_INPUT_SIZE
    return Transform(size or (rows, cols), **{**find_transform_settings(own), **settings})
