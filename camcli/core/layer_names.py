"""The names of layers: `blocks.3` is a module, `blocks.3[1]` the second part of its output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camcli.core.types import Layer


@dataclass(frozen=True, slots=True)
class LayerName:
    """A module and the part of its output; `output_index` is None if the output is one tensor."""

    module: str
    output_index: int | None = None

    def __str__(self) -> str:
        return self.module if self.output_index is None else f"{self.module}[{self.output_index}]"


def parse_layer_name(name: str) -> LayerName:
    """Parse `module` or `module[index]`."""
    module, bracket, index = name.partition("[")
    return LayerName(module, int(index.removesuffix("]")) if bracket else None)


def format_layer_list(layers: Sequence[Layer]) -> str:
    """Several layers as a short text: "blocks.8..11", "stage1..5", "blocks.0,blocks.5"."""
    if len(layers) > 1 and all(layer.stage is not None for layer in layers):
        return _join_names([f"stage{layer.stage}" for layer in layers])
    return _join_names([layer.name for layer in layers])


def _join_names(names: Sequence[str]) -> str:
    """Join names with commas; names that differ by one in one number become a range."""
    runs: list[list[str]] = []
    for name in names:
        if runs and _is_next_name(runs[-1], name):
            runs[-1].append(name)
        else:
            runs.append([name])
    return ",".join(_format_run(run) for run in runs)


def _is_next_name(run: Sequence[str], name: str) -> bool:
    place = _find_changed_part(run[-1], name)
    if place is None or _find_changed_part(run[0], name) != place:
        return False
    return int(_split_numbers(name)[place]) == int(_split_numbers(run[-1])[place]) + 1


def _find_changed_part(name: str, other: str) -> int | None:
    """The index of the number in which two names differ; None if they differ in more."""
    before, after = _split_numbers(name), _split_numbers(other)
    if len(before) != len(after):
        return None
    places = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    return places[0] if len(places) == 1 and places[0] % 2 else None


def _format_run(run: Sequence[str]) -> str:
    parts, last = _split_numbers(run[0]), _split_numbers(run[-1])
    ends = zip(parts, last, strict=True)
    return "".join(part if part == end else f"{part}..{end}" for part, end in ends)


def _split_numbers(name: str) -> list[str]:
    """A name's texts and numbers in turn: "blocks.5.norm1" -> "blocks.", "5", ".norm", "1", ""."""
    return re.split(r"([0-9]+)", name)
