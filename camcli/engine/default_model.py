"""Choose the built-in network that suits the methods and layers, without importing torch."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.core.errors import LayerError
from camcli.engine.providers.provider_registry import list_providers
from camcli.methods.registry import Method
from camcli.models.introspection.selectors import list_block_numbers
from camcli.models.zoo.builtin_names import (
    BUILTIN_CNN,
    BUILTIN_NAMES,
    BUILTIN_TSCAM,
    BUILTIN_VIT,
    count_builtin_blocks,
)

LARGER_VIT = "vit_tiny_patch16_224"  # in messages: a ViT of timm with twelve blocks


def choose_default_model(
    methods: Sequence[Method], layer_specs: Sequence[str | None] = (None,)
) -> str:
    """The name of the embedded network that suits all these methods and layers.

    It is a transformer if any method needs attention, or if the user chose blocks. If all of these
    methods follow attention to the CLS token, or none needs attention, the transformer is the one
    that classifies by that token; TS-CAM's head reads the patches instead.
    """
    attentive = [m for m in methods if "CNN" not in m.works_on]
    if not attentive and not any(map(list_block_numbers, layer_specs)):
        return BUILTIN_CNN
    return BUILTIN_VIT if all(map(_reads_cls, attentive)) else BUILTIN_TSCAM


def _reads_cls(method: Method) -> bool:
    return any(provider.reads_cls for provider in list_providers(method))


def check_builtin_blocks(name: str | None, layer_specs: Sequence[str | None]) -> None:
    """Raise LayerError if the user chose blocks that the built-in network `name` does not have.

    Other networks are checked when they are loaded.
    """
    numbers = [number for spec in layer_specs for number in list_block_numbers(spec)]
    if name not in BUILTIN_NAMES or not numbers:
        return
    if name == BUILTIN_CNN:
        raise LayerError(
            f"--block: {name} has no transformer blocks; use --layers, or --model {LARGER_VIT}"
        )
    count = count_builtin_blocks()
    missing = [number for number in numbers if not -count <= number < count]
    if missing:
        raise LayerError(
            f"--block {missing[0]}: the built-in transformer {name} has blocks 0..{count - 1}; "
            f"write --block {count - 1}, or choose a deeper network: --model {LARGER_VIT}"
        )
