"""Parse the options --layers and --block."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from camcli.core.errors import LayerError, UsageError, format_suggestion
from camcli.core.types import Layer

EACH_PREFIX = "each:"  # before a specification: a row of results for each of its layers
# A block is written with a space, as modules of some networks are called block3.
NUMBERED_PATTERN = re.compile(
    r"(stage|block)(?:(?<=stage)s?| )\s*(-?\d{1,4})"
    r"(?:\.\.(?:stage)?(-?\d{1,4})|-(?:stage)?(\d{1,4}))?"
)
FROM_END_PATTERN = re.compile(r"(-\d{1,4})(?:\.\.(-\d{1,4}))?")
NAME_RANGE_PATTERN = re.compile(r"(.*\D)(\d{1,4})(?:\.\.|-)(?:\1)?(\d{1,4})(\D.*)?")
BLOCK_RANGE_PATTERN = re.compile(r"-?\d{1,4}(?:\.\.-?\d{1,4}|-\d{1,4})?")
LayerChoice = str | Sequence[str] | None  # one specification, or one for each row
BlockChoice = int | str | Sequence[int | str] | None
BlockFinder = Callable[[int, Sequence[Layer]], Layer]


def create_layer_specs(layers: LayerChoice, block: BlockChoice) -> tuple[str | None, ...]:
    """Each row's specification: those of `--layers`, then those of `--block`; None without any.

    Raises UsageError for a block that is no number, list, range or `all`.
    """
    specs = [layers] if isinstance(layers, str) else layers or []
    blocks = [block] if isinstance(block, int | str) else block or []
    return tuple(dict.fromkeys([*specs, *map(parse_block_spec, blocks)])) or (None,)


def parse_block_spec(spec: int | str) -> str:
    """`--block` as a specification of `--layers`: "0..3,5" -> "block 0..3,block 5".

    Raises UsageError.
    """
    given = str(spec)
    prefix = EACH_PREFIX if given.startswith(EACH_PREFIX) else ""
    parts = [part.strip() for part in given.removeprefix(EACH_PREFIX).split(",")]
    if not all(part == "all" or BLOCK_RANGE_PATTERN.fullmatch(part) for part in parts):
        raise UsageError(
            f"--block {given[:60]}: write a number such as 11 or -1, a list 0,5,11, a range 0..11,"
            " or all"
        )
    return prefix + ",".join(f"block {'0..-1' if part == 'all' else part}" for part in parts)


def list_block_numbers(spec: str | None) -> list[int]:
    """The numbers of blocks in a specification, as `--block` gives them: the ends of ranges."""
    parts = (spec or "").removeprefix(EACH_PREFIX).split(",")
    found = (NUMBERED_PATTERN.fullmatch(part.strip()) for part in parts)
    blocks = [match for match in found if match and match[1] == "block"]
    return [int(number) for match in blocks for number in match.groups()[1:] if number]


def parse_layer_spec(
    spec: str,
    layers: Sequence[Layer],
    find_last: Callable[[], Layer],
    find_block: BlockFinder | None = None,
) -> tuple[Layer, ...]:
    """The layers that `--layers` names, in the given order.

    `spec` is a comma-separated list of `stage3`, `stage1..5`, `block 3`, `block 0..11`, `-2`
    (the second last stage or block), `last`, `all` (every stage or every block), module names,
    ranges of names (`blocks.0..11`), and patterns of names (`blocks.*.norm1`). `find_last` measures
    the last layer, and runs only if the list needs it. `find_block` finds the layer of a numbered
    block; by default `find_block_layer`. Raises LayerError, with near matches, for a layer that
    does not exist.
    """
    found = _list_labelled_layers(spec, layers, find_last, find_block or find_block_layer)
    return tuple(dict.fromkeys(layer for _, layer in found))


def split_layer_spec(
    spec: str, layers: Sequence[Layer], find_last: Callable[[], Layer]
) -> tuple[str, ...]:
    """The specifications of single layers that `each:SPEC` stands for: stage1, stage2, ..."""
    if not spec.startswith(EACH_PREFIX):
        return (spec,)
    found = _list_labelled_layers(spec, layers, find_last, find_block_layer)
    return tuple(dict.fromkeys(label for label, _ in found))


def _list_labelled_layers(
    spec: str, layers: Sequence[Layer], find_last: Callable[[], Layer], find_block: BlockFinder
) -> list[tuple[str, Layer]]:
    """The layers of a specification, each with the specification of itself alone."""
    parts = [part.strip() for part in spec.removeprefix(EACH_PREFIX).split(",") if part.strip()]
    found = [
        labelled
        for part in parts
        for labelled in _iter_part_layers(part, layers, find_last, find_block)
    ]
    if not found:
        raise LayerError(
            "--layers selects no layers; try `last`, `all` or a name from `camcli layers`"
        )
    return found


def _iter_part_layers(
    part: str, layers: Sequence[Layer], find_last: Callable[[], Layer], find_block: BlockFinder
) -> Iterator[tuple[str, Layer]]:
    if part == "last":
        yield part, find_last()
    elif part == "all":
        numbered = [la for la in layers if la.stage is not None or la.block is not None]
        yield from ((layer.name, layer) for layer in numbered or [find_last()])
    elif match := NUMBERED_PATTERN.fullmatch(part):
        yield from _iter_numbered_layers(
            match[1], match[2], match[3] or match[4], layers, find_block
        )
    elif match := FROM_END_PATTERN.fullmatch(part):
        has_stages = any(layer.stage is not None for layer in layers)
        kind = "stage" if has_stages else "block"
        yield from _iter_numbered_layers(kind, match[1], match[2], layers, find_block)
    elif "*" in part or "?" in part:
        yield from ((layer.name, layer) for layer in _match_layer_pattern(part, layers))
    elif (match := NAME_RANGE_PATTERN.fullmatch(part)) and not _is_layer_name(part, layers):
        for number in _create_range(part, int(match[2]), int(match[3])):
            name = f"{match[1]}{number}{match[4] or ''}"
            yield name, find_layer_by_name(name, layers)
    else:
        yield part, find_layer_by_name(part, layers)


def _iter_numbered_layers(
    kind: str, first: str, until: str | None, layers: Sequence[Layer], find_block: BlockFinder
) -> Iterator[tuple[str, Layer]]:
    """The stages or blocks of a range; numbers below 0 count from the end."""
    find = _find_stage_layer if kind == "stage" else find_block
    numbers = [la.stage if kind == "stage" else la.block for la in layers]
    after_last = max((number for number in numbers if number is not None), default=-1) + 1
    ends = [
        number + after_last if -after_last <= number < 0 else number
        for number in (int(first), int(until or first))
    ]
    label = f"{kind}{first}..{until}"
    for number in _create_range(label, ends[0], ends[1]):
        yield f"{kind}{' ' * (kind == 'block')}{number}", find(number, layers)


def _create_range(label: str, first: int, last: int) -> range:
    if first > last:
        raise LayerError(f"--layers {label} selects no layers: write the smaller number first")
    return range(first, last + 1)


def _is_layer_name(text: str, layers: Sequence[Layer]) -> bool:
    return any(text in (layer.name, layer.module_name) for layer in layers)


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


def find_block_output(number: int, layers: Sequence[Layer]) -> Layer:
    """The output of block N; -1 is the last block. Raises LayerError if there is no such block."""
    blocks = [layer for layer in layers if layer.block is not None]
    if not blocks:
        raise LayerError("--block: this model has no transformer blocks; use --layers")
    if not -len(blocks) <= number < len(blocks):
        raise LayerError(f"--block {number}: this model has blocks 0..{len(blocks) - 1}")
    return blocks[number]


def find_block_layer(number: int, layers: Sequence[Layer]) -> Layer:
    """The layer that feeds the attention of block N, mostly `norm1`; -1 is the last block.

    Raises LayerError if there is no such block, or no attention in it.
    """
    inside = f"{find_block_output(number, layers).module_name}."
    feeding = [
        layer
        for layer in layers
        if any(f"{name}.".startswith(inside) for name in layer.attention_consumers)
    ]
    if not feeding:
        raise LayerError(f"--block {number}: this block has no attention; use --layers")
    return feeding[-1]


def list_layer_options(layers: Sequence[Layer]) -> dict[str, str]:
    """For each layer's name, the option that selects exactly its output.

    It is `--block N` for the input of a block's attention, `--layers stageN` for a stage, and
    `--layers NAME` for every other layer.
    """
    found = {la.name: f"--layers {shlex.quote(la.name)}" for la in layers}
    found |= {la.name: f"--layers stage{la.stage}" for la in layers if la.stage is not None}
    for number in (la.block for la in layers if la.block is not None):
        with suppress(LayerError):  # a block without attention
            found[find_block_layer(number, layers).name] = f"--block {number}"
    return found
