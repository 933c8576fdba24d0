"""Where networks come from: what `--model` and `--checkpoint` mean. Knows nothing of methods."""

from __future__ import annotations

import os
from pathlib import Path

from camcli import embedded, foreign, hub, weights
from camcli.architectures import HUB, TORCHVISION, Built, Size, offline
from camcli.errors import ModelError

FILES = ("model.safetensors", "pytorch_model.bin", "model_best.pth.tar", "model_best.pth")


def build(name: str | None, checkpoint: Path | None, size: Size) -> Built:
    """The network that `--model` and `--checkpoint` name, with its weights and its transform."""
    itself = _file(name)
    if name is not None and name.startswith(foreign.PROGRAM):
        return foreign.program(name, size)
    if name is not None and _is_code(name) and itself is None:
        return foreign.called(name, checkpoint, size)
    file = checkpoint or itself
    if file is None:
        known = embedded.CNN if name is None else name
        return offline(known, size) if known in embedded.NAMES else hub.pretrained(known, size)
    foreign.refuse_program(file)
    return weights.from_file(file, None if itself else name, size)


def _file(name: str | None) -> Path | None:
    """The file that a name is of, or the weights in the folder that it is of."""
    if not name or not os.path.exists(name):
        return None
    path = Path(name)
    if path.is_file():
        return path
    inside = [path / each for each in FILES if (path / each).is_file()]
    if not inside:
        raise ModelError(f"--model {name}: a folder that holds none of {', '.join(FILES)}")
    return inside[0]


def _is_code(name: str) -> bool:
    return ":" in name and not name.startswith((TORCHVISION, *HUB))
