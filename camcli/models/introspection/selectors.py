"""Parse the options --layers and --block."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from camcli.core.errors import LayerError, format_suggestion
from camcli.core.types import Layer

STAGE_PATTERN = re.compile(r"stage(-?\d{1,4})(?:\.\.(?:stage)?(-?\d{1,4}))?")


def parse_layer_spec(
    spec: str, layers: Sequence[Layer], find_last: Callable[[], Layer]
) -> tuple[Layer, ...]:
    """The layers that `--layers` names, in the given order.

    `spec` is a comma-separated list of `stage3`, `stage1..5`, `last`, `all` (every stage or every
    block), module names, and patterns of names (`blocks.*.norm1`). `find_last` measures the last
    layer, and runs only if the list needs it. Raises LayerError, with near matches, for a layer
    that does not exist.
    """
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    found = dict.fromkeys(
        layer for part in parts for layer in _iter_spec_layers(part, layers, find_last)
    )
    if not found:
        raise LayerError(
            "--layers selects no layers; try `last`, `all` or a name from `camcli layers`"
        )
    return tuple(found)


def _iter_spec_layers(
    part: str, layers: Sequence[Layer], find_last: Callable[[], Layer]
) -> Iterator[Layer]:
    if part == "last":
        yield find_last()
    elif part == "all":
        numbered = [la for la in layers if la.stage is not None or la.block is not None]
        yield from numbered or [find_last()]
    elif match := STAGE_PATTERN.fullmatch(part):
        first, until = int(match[1]), int(match[2] or match[1])
        yield from (_find_stage_layer(number, layers) for number in range(first, until + 1))
    elif "*" in part or "?" in part:
        yield from _match_layer_pattern(part, layers)
    else:
        yield find_layer_by_name(part, layers)


def _match_layer_pattern(pattern: str, layers: Sequence[Layer]) -> list[Layer]:
    found = [layer for layer in layers if _is_name_match(layer.name, pattern)]
    if not found:
        raise LayerError(
            f"no layer with a map matches {pattern!r}; * stands for one part of a name "
            f"(`camcli layers --all` lists the names)"
        )
    return found


def _is_name_match(name: str, pattern: str) -> bool:
    """Match the parts between dots one by one; a bracket stands for itself, not for a set."""
    parts, patterns = name.split("."), pattern.replace("[", "[[]").split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def find_layer_by_name(name: str, layers: Sequence[Layer]) -> Layer:
    """The layer with that name. Raises LayerError, with near matches."""
    known = {layer.module_name: layer for layer in layers}
    known |= {layer.name: layer for layer in layers}
    if name not in known:
        near = format_suggestion(name, known)
        raise LayerError(f"no layer {name!r} with a map{near} (`camcli layers` lists the names)")
    return known[name]


def _find_stage_layer(number: int, layers: Sequence[Layer]) -> Layer:
    stages = {layer.stage: layer for layer in layers if layer.stage is not None}
    if not stages:
        has_blocks = any(layer.block is not None for layer in layers)
        instead = "use --block N or --layers blocks.N" if has_blocks else "use names of its layers"
        raise LayerError(f"stage{number}: this model has no stages; {instead}")
    if number not in stages:
        raise LayerError(f"no stage{number}: this model has stage{min(stages)}..{max(stages)}")
    return stages[number]


def find_block_layer(number: int, layers: Sequence[Layer]) -> Layer:
    """The layer that feeds the attention of block N, mostly `norm1`; -1 is the last block.

    Raises LayerError if there is no such block, or no attention in it.
    """
    blocks = [layer for layer in layers if layer.block is not None]
    if not blocks:
        raise LayerError("--block: this model has no transformer blocks; use --layers")
    if not -len(blocks) <= number < len(blocks):
        raise LayerError(f"--block {number}: this model has blocks 0..{len(blocks) - 1}")
    inside = f"{blocks[number].module_name}."
    feeding = [
        layer
        for layer in layers
        if any(f"{name}.".startswith(inside) for name in layer.attention_consumers)
    ]
    if not feeding:
        raise LayerError(f"--block {number}: this block has no attention; use --layers")
    return feeding[-1]
