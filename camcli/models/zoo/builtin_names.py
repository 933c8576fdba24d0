"""The names of the built-in networks, and how many blocks they have: known without torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

BUILTIN_CNN = "tf_efficientnet_lite0"
BUILTIN_VIT = "vit_lite0"  # classifies the CLS token
BUILTIN_TSCAM = "tscam_vit_lite0"  # classifies with TS-CAM's convolution over the patches
BUILTIN_NAMES = (BUILTIN_CNN, BUILTIN_TSCAM, BUILTIN_VIT)
VIT_WEIGHTS_FILE = Path(__file__).parent / "weights" / "vit_lite0.safetensors"


@cache
def count_builtin_blocks() -> int:
    """The number of blocks of the built-in transformers, from the header of their weights."""
    with VIT_WEIGHTS_FILE.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return count_blocks(header)


def count_blocks(weight_names: Iterable[str]) -> int:
    """The number of different N in names such as `blocks.N.norm1.weight`."""
    found = (re.match(r"blocks\.(\d+)\.", name) for name in weight_names)
    return len({match[1] for match in found if match})
