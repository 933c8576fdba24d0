"""Networks that are a user's own: a function that makes one, or a program that torch has exported.

Knows nothing of timm. Code is run only where a user says so: `package.module:function` and
`program:FILE`; a file that only turns out to hold a program is refused.
"""

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
    """What `package.module:function` returns when it is called, with weights from a file if given.

    ImageNet's transform, squashed to 224, where the network has no `pretrained_cfg` of its own.
    Raises ModelError for what cannot be imported, called, or is no network.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ModelError(f"--model {name}: write package.module:function")
    network = _call_network_factory(name, _find_member(_import_user_module(module), function, name))
    said: dict[str, Any] = {}
    classes = None
    if checkpoint is not None:
        held = read_checkpoint(checkpoint)
        known = read_metadata(checkpoint, held.content)
        said, classes = dict(known.transform_settings), known.class_names
        state = align_keys(held.load_state(), network)
        load_into_network(network, state, checkpoint, name)
    return LoadedNetwork(name, network, _find_user_transform(network, size, said), classes)


def _import_user_module(module: str) -> ModuleType:
    """A module, from the folder in which camcli is run too, as with `python -m`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):  # standard output is data
            return import_module(module)
    except (Exception, SystemExit, GeneratorExit) as error:
        raise ModelError(
            f"{module} cannot be imported ({type(error).__name__}: {error}); for a network of your "
            f"own write package.module:function, as Python would import it from here"
        ) from error


def _find_member(module: ModuleType, function: str, name: str) -> Any:
    found = getattr(module, function, None)
    if found is None:
        near = format_suggestion(function, (n for n in vars(module) if not n.startswith("_")))
        raise ModelError(f"{name}: no {function!r} in {module.__name__}{near}")
    if not callable(found):
        raise ModelError(f"{name} is of type {type(found).__name__}: no function or class to call")
    return found


def _call_network_factory(name: str, maker: Any) -> nn.Module:
    if isinstance(maker, nn.Module):
        return maker
    try:
        with redirect_stdout(sys.stderr):
            network = maker()
    except (Exception, SystemExit, GeneratorExit) as error:
        raise ModelError(
            f"{name}() raised {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ModelError(f"{name}() returned what is of type {kind}, and no torch.nn.Module")
    return network


def _find_user_transform(network: nn.Module, size: Size | None, said: dict[str, Any]) -> Transform:
    config = getattr(network, "pretrained_cfg", None)
    own = config if isinstance(config, dict) else {}
    wanted = own.get("input_size")
    sides = (
        wanted[1:] if isinstance(wanted, tuple | list) and len(wanted) == 3 else DEFAULT_INPUT_SIZE
    )
    rows, cols = sides if all(isinstance(side, int) for side in sides) else DEFAULT_INPUT_SIZE
    return Transform(size or (rows, cols), **{**find_transform_settings(own), **said})
