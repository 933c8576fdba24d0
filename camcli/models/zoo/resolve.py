"""Resolve `--model` and `--checkpoint`: a name, a file, a folder, code or a program.

What reads files and code is imported when it is needed: it imports timm, which takes seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

from camcli.core.errors import ModelError
from camcli.models.zoo.builtin_names import BUILTIN_CNN
from camcli.models.zoo.downloads import WEIGHTS_FILE_NAMES
from camcli.models.zoo.libraries import find_library, is_owned_name
from camcli.models.zoo.library import LoadedNetwork, Size
from camcli.models.zoo.model_files import PROGRAM_PREFIX, check_model_file

CHECKPOINT_FILE_NAMES = (*WEIGHTS_FILE_NAMES, "model_best.pth.tar", "model_best.pth")


def load_network(name: str | None, checkpoint: Path | None, size: Size | None) -> LoadedNetwork:
    """The network that `--model` and `--checkpoint` name, with its weights and its transform."""
    if name is not None and name.startswith(PROGRAM_PREFIX):
        from camcli.models.zoo.exported import load_program

        return load_program(name, size)
    named_file = _find_weights_file(name)
    if name is not None and named_file is None and not is_owned_name(name):
        from camcli.models.zoo.user_code import load_user_network

        return load_user_network(name, checkpoint, size)
    if checkpoint and named_file:
        raise ModelError(
            f"--model {name} and --checkpoint both give a file of weights; omit one of them"
        )
    file = checkpoint or named_file
    if file is None:
        known = BUILTIN_CNN if name is None else name
        return find_library(known).load_pretrained(known, size)
    from camcli.models.zoo.exported import check_not_program
    from camcli.models.zoo.from_checkpoint import load_checkpoint_network

    check_not_program(file)
    return load_checkpoint_network(file, None if named_file else name, size)


def is_library_name(name: str) -> bool:
    """Whether a name belongs to a model library, and is not a file, a folder or user code."""
    return is_owned_name(name) and _find_weights_file(name) is None


def _find_weights_file(name: str | None) -> Path | None:
    """The weights file at this path, or in the folder at this path."""
    if not name:
        return None
    check_model_file(name)
    if not os.path.exists(name):
        return None
    path = Path(name)
    if path.is_file():
        return path
    if not path.is_dir():
        raise ModelError(f"--model {name} is neither a file nor a folder")
    if is_owned_name(name) and find_library(name).has_name(name):
        return None  # a run may have written its results to a folder with the model's name
    inside = [path / each for each in CHECKPOINT_FILE_NAMES if (path / each).is_file()]
    if not inside:
        raise ModelError(
            f"--model {name}: the folder has none of these files: "
            f"{', '.join(CHECKPOINT_FILE_NAMES)}"
        )
    return inside[0]
