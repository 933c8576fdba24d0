"""TorchScript and torch.export programs, which are loaded only if the user asks with `program:`."""

from __future__ import annotations

import logging
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import CheckpointError, ModelError
from camcli.core.types import Transform
from camcli.models.zoo.library import DEFAULT_INPUT_SIZE, LoadedNetwork, Size
from camcli.models.zoo.model_files import PROGRAM_PREFIX


def check_not_program(path: Path) -> None:
    """Raise CheckpointError for a file that is a program.

    Both formats can make torch run code from the file while it loads.
    """
    kind = _find_program_format(path)
    if kind:
        raise CheckpointError(
            f"{path} is a {kind} program; loading it runs code from the file. If you trust it, use "
            f"--model program:{path}; a plain weights file is safer"
        )


def _find_program_format(path: Path) -> str | None:
    if not path.is_file():  # reading a pipe would not end
        return None
    with suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as opened:
        names = [name.partition("/")[2] or name for name in opened.namelist()]
        if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
            return "TorchScript"
        if any(name.endswith(("exported_program.json", "models/model.json")) for name in names):
            return "torch.export"
    return None


class ProgramNetwork(nn.Module):
    """A program as a network, in the mode of its export and with its batch size."""

    def __init__(self, graph: nn.Module, batch: int | None = None) -> None:
        super().__init__()
        self.graph = [graph]  # not a child: its mode cannot be set
        self.weights = nn.ParameterList(graph.parameters())
        self.batch_size = batch

    def to(self, *where: Any, **how: Any) -> ProgramNetwork:
        """Move the program itself: its tensors may not be parameters."""
        self.graph[0].to(*where, **how)
        return self

    def forward(self, images: Tensor) -> Any:
        """Run the program on batches of the size that it accepts."""
        parts = torch.split(images, self.batch_size) if self.batch_size else (images,)
        found = [self.graph[0](part.contiguous()) for part in parts]
        return found[0] if len(found) == 1 else torch.cat(found)


def load_program(name: str, size: Size | None) -> LoadedNetwork:
    """The program of `program:FILE`, TorchScript or torch.export. Its layers cannot have hooks.

    Raises CheckpointError for another file or one that torch cannot load, ModelError for a size
    that the program does not accept.
    """
    path = Path(name.removeprefix(PROGRAM_PREFIX))
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    kind = _find_program_format(path)
    if kind is None:
        raise CheckpointError(f"{path} is not a TorchScript or torch.export program")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about old formats that we must read
            logging.getLogger("torch.export").setLevel(logging.CRITICAL)
            network, wanted = PROGRAM_LOADERS[kind](path)
    except (RuntimeError, ValueError, OSError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"{path}: torch cannot load this {kind} file: {reason}") from None
    if wanted and size not in (None, wanted):
        raise ModelError(f"{path} was exported for {wanted[0]}x{wanted[1]} inputs; omit --size")
    return LoadedNetwork(path.stem, network, Transform(size or wanted or DEFAULT_INPUT_SIZE))


def _load_torchscript(path: Path) -> tuple[nn.Module, Size | None]:
    load: Any = torch.jit.load
    return ProgramNetwork(load(str(path), map_location="cpu").eval()), None


def _load_torch_export(path: Path) -> tuple[nn.Module, Size | None]:
    graph = torch.export.load(path).module()
    (image,) = (node for node in graph.graph.nodes if node.op == "placeholder")
    batch, _, rows, cols = (
        side if isinstance(side, int) else None for side in image.meta["val"].shape
    )
    if batch not in (None, 1):
        raise ValueError(
            f"it needs {batch} images at once; export it with a batch of 1 or of any size"
        )
    return ProgramNetwork(graph, batch), (rows, cols) if rows and cols else None


PROGRAM_LOADERS = {"TorchScript": _load_torchscript, "torch.export": _load_torch_export}
