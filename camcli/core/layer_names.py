"""The names of layers: `blocks.3` is a module, `blocks.3[1]` the second part of its output."""

from __future__ import annotations

from dataclasses import dataclass


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
