"""Where networks come from: what `--model` and `--checkpoint` mean. Knows nothing of methods."""

from __future__ import annotations

import os
from pathlib import Path

import timm

from camcli.core.errors import ModelError
from camcli.models.zoo.architectures import (
    HUB_PREFIXES,
    TORCHVISION_PREFIX,
    InputSize,
    LoadedNetwork,
    load_builtin,
)
from camcli.models.zoo.builtin import BUILTIN_CNN, BUILTIN_NAMES
from camcli.models.zoo.exported import PROGRAM_PREFIX, check_not_program, load_program
from camcli.models.zoo.from_checkpoint import load_checkpoint_network
from camcli.models.zoo.pretrained import HUB_WEIGHTS_FILE_NAMES, load_pretrained
from camcli.models.zoo.user_code import load_user_network

CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar", ".ckpt", ".pt2")
CHECKPOINT_FILE_NAMES = (*HUB_WEIGHTS_FILE_NAMES, "model_best.pth.tar", "model_best.pth")


def load_network(name: str | None, checkpoint: Path | None, size: InputSize) -> LoadedNetwork:
    """The network that `--model` and `--checkpoint` name, with its weights and its transform."""
    if name is not None and name.startswith(PROGRAM_PREFIX):
        return load_program(name, size)
    itself = _find_weights_file(name)
    if name is not None and _is_user_code(name) and itself is None:
        return load_user_network(name, checkpoint, size)
    if checkpoint and itself:
        raise ModelError(f"--model {name} and --checkpoint are two files of weights: give one")
    file = checkpoint or itself
    if file is None:
        known = BUILTIN_CNN if name is None else name
        return load_builtin(known, size) if known in BUILTIN_NAMES else load_pretrained(known, size)
    check_not_program(file)
    return load_checkpoint_network(file, None if itself else name, size)


def is_library_name(name: str) -> bool:
    """Whether it is one of a library's, and no file or function."""
    return not _is_user_code(name) and _find_weights_file(name) is None


def _find_weights_file(name: str | None) -> Path | None:
    """The file that a name is of, or the weights in the folder that it is of."""
    if not name:
        return None
    if not os.path.exists(name):
        if name.lower().endswith(CHECKPOINT_SUFFIXES):
            raise ModelError(f"--model {name}: no such file")
        return None
    path = Path(name)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"--model {name} is neither a file nor a folder")
    if timm.is_model(name):
        return None  # what a run has written, perhaps, under the model's name
    inside = [path / each for each in CHECKPOINT_FILE_NAMES if (path / each).is_file()]
    if not inside:
        raise ModelError(
            f"--model {name}: a folder that holds none of {', '.join(CHECKPOINT_FILE_NAMES)}"
        )
    return inside[0]


def _is_user_code(name: str) -> bool:
    return ":" in name and not name.startswith((TORCHVISION_PREFIX, *HUB_PREFIXES))
