"""Networks from the user's own Python code, for `--model package.module:function` only."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from camcli.core.errors import ModelError, format_suggestion, to_one_line
from camcli.core.types import Transform
from camcli.models.zoo.checkpoints import align_keys, load_into_network, read_checkpoint
from camcli.models.zoo.library import LoadedNetwork, Size
from camcli.models.zoo.metadata import CheckpointMetadata, read_metadata
from camcli.models.zoo.network_settings import describe_normalization, find_network_settings
from camcli.models.zoo.wrapper_prefix import strip_wrapper

PRINTED_LINES = 10  # of user code, shown where it fails


def load_user_network(name: str, checkpoint: Path | None, size: Size | None) -> LoadedNetwork:
    """The network that `package.module:function` returns, with weights from a file if given.

    The transform and the class names are those of the file, or else those that the network states;
    otherwise ImageNet's transform at 224. Raises ModelError if the function cannot be imported or
    called, or does not return a network; a note then has what the code printed.
    """
    module, _, function = name.partition(":")
    if not module or not function:
        raise ModelError(f"--model {name}: write package.module:function")
    with _capture_prints():
        maker = _find_member(_import_user_module(module), function, name)
        network = _call_network_factory(name, maker)
        own = find_network_settings(network)
    note, metadata = "", CheckpointMetadata()
    if checkpoint is not None:
        file = read_checkpoint(checkpoint)
        metadata = read_metadata(checkpoint, file.content)
        state, note = strip_wrapper(file.load_state(), network)
        load_into_network(network, align_keys(state, network), checkpoint, name)
    settings = {**own.transform, **metadata.transform_settings}
    source = "the settings of the file" if "mean" in metadata.transform_settings else own.source
    transform = Transform(size or own.size, **settings)
    return LoadedNetwork(
        name,
        network,
        transform,
        metadata.class_names or own.class_names,
        note=note,
        normalization_note=f"{name}: {describe_normalization(transform, source)}",
    )


@contextmanager
def _capture_prints() -> Iterator[None]:
    """Inside the context nothing is printed; a ModelError gets the last lines as a note."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    except ModelError as error:
        lines = printed.getvalue().replace("\r", "\n").strip().splitlines()[-PRINTED_LINES:]
        if lines:
            error.add_note("\n".join(["the code printed:", *map(to_one_line, lines)]))
        raise


def _import_user_module(module: str) -> ModuleType:
    """Import a module, also from the current folder as with `python -m`."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
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


def _copy_instance(network: nn.Module) -> nn.Module:
    """A copy with its own weights: camcli freezes it, and may load a checkpoint into it.

    A network that cannot be copied is used itself.
    """
    with suppress(Exception):  # a module may hold anything
        return deepcopy(network)
    return network


def _call_network_factory(name: str, maker: Any) -> nn.Module:
    if isinstance(maker, nn.Module):
        return _copy_instance(maker)
    try:
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
