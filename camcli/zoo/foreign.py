"""Networks that are a user's own: a function that makes one, or a program that torch has exported.

Knows nothing of timm. Code is run only where a user says so: `package.module:function` and
`program:FILE`; a file that only turns out to hold a program is refused.
"""

from __future__ import annotations

import logging
import sys
import warnings
import zipfile
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from camcli import checkpoints
from camcli.errors import CheckpointError, ModelError, hint
from camcli.records import Transform
from camcli.zoo.architectures import Built, Size
from camcli.zoo.described import described, transform_of

USUAL = (224, 224)
PROGRAM = "program:"


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


def refuse_program(path: Path) -> None:
    """Raises CheckpointError for a file that holds a program and not weights only.

    Both of torch's formats can make torch run what their author wrote, on loading already.
    """
    kind = _format(path)
    if kind:
        raise CheckpointError(
            f"{path} is a {kind} program: to run it is to run what its author wrote. If you trust "
            f"it, --model program:{path}; if you have its weights too, rather those"
        )


def _format(path: Path) -> str | None:
    if not path.is_file():  # a pipe would never end
        return None
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as opened:
        names = [name.partition("/")[2] or name for name in opened.namelist()]
        if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
            return "TorchScript"
        if any(name.endswith(("exported_program.json", "models/model.json")) for name in names):
            return "torch.export"
    return None


class Program(nn.Module):
    """A program as a network: in the mode it was exported in, so many images at a time."""

    def __init__(self, graph: nn.Module, batch: int | None = None) -> None:
        super().__init__()
        self.graph = [graph]  # not a child: its mode cannot be set, and its modules are not called
        self.weights = nn.ParameterList(graph.parameters())
        self.batch = batch

    def to(self, *where: Any, **how: Any) -> Program:
        """The program moves itself: what it holds may be no parameter."""
        self.graph[0].to(*where, **how)
        return self

    def forward(self, images: Tensor) -> Any:
        """As many images at a time as the program takes."""
        parts = torch.split(images, self.batch) if self.batch else (images,)
        found = [self.graph[0](part.contiguous()) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found)


def program(name: str, size: Size) -> Built:
    """What `program:FILE` names: a TorchScript or torch.export file. Its layers cannot be tapped.

    Raises CheckpointError for a file that is neither, or that torch cannot load.
    """
    path = Path(name.removeprefix(PROGRAM))
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    kind = _format(path)
    if kind is None:
        raise CheckpointError(f"{path} is no program that TorchScript or torch.export has written")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the format is old: the file is what it is
            logging.getLogger("torch.export").setLevel(logging.CRITICAL)
            network, wanted = FORMATS[kind](path)
    except (RuntimeError, ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: torch cannot load this {kind} file: {reason}") from None
    if wanted and size not in (None, wanted):
        raise ModelError(
            f"{path} was exported for {wanted[0]}x{wanted[1]} inputs; leave --size out"
        )
    return Built(path.stem, network, Transform(size or wanted or USUAL))


def _scripted(path: Path) -> tuple[nn.Module, Size]:
    load: Any = torch.jit.load
    return Program(load(str(path), map_location="cpu").eval()), None


def _program(path: Path) -> tuple[nn.Module, Size]:
    graph = torch.export.load(path).module()
    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    batch, _, rows, cols = (
        side if isinstance(side, int) else None for side in image.meta["val"].shape
    )
    if batch not in (None, 1):
        raise ValueError(f"it takes {batch} images at once; export it with one, or any number")
    return Program(graph, batch), (rows, cols) if rows and cols else None


FORMATS = {"TorchScript": _scripted, "torch.export": _program}
