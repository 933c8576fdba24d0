"""Which `--model` names a file, and whether it is there; known without torch."""

from __future__ import annotations

import os

from camcli.core.errors import ModelError

PROGRAM_PREFIX = "program:"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar", ".ckpt", ".pt2")


def check_model_file(name: str | None, option: str = "--model") -> None:
    """Raise ModelError for a weights file or a program that does not exist."""
    text = name or ""
    is_file_name = text.startswith(PROGRAM_PREFIX) or text.lower().endswith(CHECKPOINT_SUFFIXES)
    if is_file_name and not os.path.exists(text.removeprefix(PROGRAM_PREFIX)):
        raise ModelError(f"{option} {text}: no such file")
