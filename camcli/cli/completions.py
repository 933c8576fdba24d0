"""Values that the shell completes after Tab, found without importing torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files

from camcli.methods.registry import METHODS
from camcli.models.zoo.builtin_names import BUILTIN_NAMES

LAYER_SPECS = (
    *("last", "all", *(f"stage{n}" for n in range(1, 6))),
    *("stage1..5", "stage3..5", "each:stage1..5"),
)
COLUMN_WORDS = (
    *("image", "fused", "spotlight", "cutout", "layers", "blocks"),
    *("parts", "methods", "models", "classes"),
)
ALL_KEYWORD, CHEAP_KEYWORD = "all", "all-cheap"


def complete_methods(incomplete: str) -> list[str]:
    """Names of methods, also after a comma."""
    return _complete_list(METHODS, incomplete)


def complete_compared_methods(incomplete: str) -> list[str]:
    """Names of methods, and the keywords that stand for many."""
    return _complete_list([ALL_KEYWORD, CHEAP_KEYWORD, *METHODS], incomplete)


def complete_models(incomplete: str) -> list[str]:
    """Names of networks: built-in ones, and those of timm and torchvision in camcli's index."""
    return _complete_list([*BUILTIN_NAMES, *load_architecture_names()], incomplete)


def complete_layers(incomplete: str) -> list[str]:
    """Selections of layers that most networks have, also after a comma."""
    return _complete_list(LAYER_SPECS, incomplete)


def complete_columns(incomplete: str) -> list[str]:
    """Words for the columns of a figure, also after a comma."""
    return _complete_list([*COLUMN_WORDS, *LAYER_SPECS, *METHODS], incomplete)


def load_architecture_names() -> list[str]:
    """The architectures of the index of signatures, in order."""
    index = files("camcli.models.zoo") / "signatures.json"
    trunks = json.loads(index.read_text(encoding="utf-8"))["trunks"].values()
    return sorted({name for entries in trunks for name, *_ in entries})


def _complete_list(names: Iterable[str], incomplete: str) -> list[str]:
    """Complete the name after the last comma; keep the text before it."""
    given, comma, start = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in names if name.startswith(start)]
