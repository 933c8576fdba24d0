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

from camcli.core.errors import ModelError, hint
from camcli.core.types import Transform
from camcli.models.zoo import checkpoints
from camcli.models.zoo.architectures import USUAL, Built, Size
from camcli.models.zoo.metadata import described, transform_of


def called(name: str, checkpoint: Path | None, size: Size) -> Built:
    """What `package.module:function` returns when it is called, with weights from a file if given.

    ImageNet's transform, squashed to 224, where the network has no `pretrained_cfg` of its own.
    Raises ModelError for what cannot be imported, called, or is no network.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ModelError(f"--model {name}: write package.module:function")
    network = _made(name, _member(_imported(module), function, name))
    said: dict[str, Any] = {}
    classes = None
    if checkpoint is not None:
        held = checkpoints.held(checkpoint)
        known = described(checkpoint, held.content)
        said, classes = dict(known.transform), known.classes
        state = checkpoints.aligned(held.load(), network)
        checkpoints.load_into(network, state, checkpoint, name)
    return Built(name, network, _transform(network, size, said), classes)


def _imported(module: str) -> ModuleType:
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


def _member(module: ModuleType, function: str, name: str) -> Any:
    found = getattr(module, function, None)
    if found is None:
        near = hint(function, (n for n in vars(module) if not n.startswith("_")))
        raise ModelError(f"{name}: no {function!r} in {module.__name__}{near}")
    if not callable(found):
        raise ModelError(f"{name} is of type {type(found).__name__}: no function or class to call")
    return found


def _made(name: str, maker: Any) -> nn.Module:
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


def _transform(network: nn.Module, size: Size, said: dict[str, Any]) -> Transform:
    config = getattr(network, "pretrained_cfg", None)
    own = config if isinstance(config, dict) else {}
    wanted = own.get("input_size")
    sides = wanted[1:] if isinstance(wanted, tuple | list) and len(wanted) == 3 else USUAL
    rows, cols = sides if all(isinstance(side, int) for side in sides) else USUAL
    return Transform(size or (rows, cols), **{**transform_of(own), **said})
