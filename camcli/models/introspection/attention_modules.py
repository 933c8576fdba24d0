"""Find the attention modules that mix image positions, and measure their matrices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import MethodError
from camcli.core.layer_names import format_layer_list
from camcli.core.types import Layer
from camcli.models.introspection.hooks import find_module, record_outputs
from camcli.models.introspection.probe import create_probe_image
from camcli.models.introspection.quirks import ArchitectureQuirks


@dataclass(frozen=True, slots=True)
class AttentionModule:
    """An attention module and the shape of its matrices: (B,heads,queries,N), rows sum to 1.

    `input_layer` is the map that it reads, whose tokens are its N; `block_layer` is the output of
    its block. `is_global` says that every query attends to all tokens of the input layer. Without
    visible matrices `head_count` and `query_count` are 0.
    """

    name: str
    module: Any
    input_layer: Layer
    block_layer: Layer
    head_count: int
    query_count: int
    is_global: bool

    @property
    def matrix_name(self) -> str:
        """The module that outputs the matrices: timm's dropout after the softmax."""
        return f"{self.name}.attn_drop"

    def to_matrix(self, recorded_attention: Tensor) -> Tensor:
        """A recorded output of `attn_drop` as (B,heads,Q,N); it may have (B*heads,Q,N)."""
        return recorded_attention.reshape(
            -1, self.head_count, self.query_count, self.input_layer.token_count
        )


@dataclass(frozen=True, slots=True)
class _MatrixShape:
    head_count: int = 0
    query_count: int = 0
    key_count: int = 0
    sums_to_one: bool = False


def find_attention_modules(
    network: nn.Module, quirks: ArchitectureQuirks, layers: Sequence[Layer], size: tuple[int, int]
) -> tuple[AttentionModule, ...]:
    """Find every attention module that mixes positions, and measure its matrices on the probe.

    Attention in windows, over pooled keys, over channels, or with talking heads is not global.
    """
    input_layers = {
        name: layer
        for layer in layers
        for name in layer.attention_consumers
        if name.rpartition(".")[2] not in quirks.ignored_attention
    }
    modules = {name: find_module(network, name) for name in input_layers}
    shapes = _measure_matrices(network, modules, size) if modules else {}
    return tuple(
        _create_attention_module(
            name, module, input_layers[name], layers, shapes.get(name, _MatrixShape())
        )
        for name, module in modules.items()
    )


def _measure_matrices(
    network: nn.Module, modules: dict[str, nn.Module], size: tuple[int, int]
) -> dict[str, _MatrixShape]:
    dropouts = {
        f"{name}.attn_drop": name
        for name, module in modules.items()
        if isinstance(getattr(module, "attn_drop", None), nn.Module)
    }
    reducers = dict.fromkeys(dropouts, _measure_matrix)
    with (
        disable_fused_attention(tuple(modules.values())),
        record_outputs(network, reducers=reducers) as recording,
    ):
        network(create_probe_image(network, size))
    return {
        dropouts[name]: _unpack_measurement(measured)
        for name, measured in recording.reduced_outputs.items()
    }


def _measure_matrix(matrix: Tensor) -> Tensor:
    """Heads, Q, N and whether rows sum to 1, as a tensor: matrices are too large to keep."""
    sums = matrix.sum(dim=-1)
    sums_to_one = torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    has_matrices = 3 <= matrix.ndim <= 4
    return torch.tensor([*matrix.shape[-3:], int(sums_to_one)] if has_matrices else [0, 0, 0, 0])


def _unpack_measurement(measured: Tensor) -> _MatrixShape:
    heads, queries, keys, sums_to_one = measured.tolist()
    return _MatrixShape(heads, queries, keys, bool(sums_to_one))


def _create_attention_module(
    name: str, module: nn.Module, layer: Layer, layers: Sequence[Layer], shape: _MatrixShape
) -> AttentionModule:
    sees_all = shape.key_count == layer.token_count and shape.query_count in (1, layer.token_count)
    return AttentionModule(
        name=name,
        module=module,
        input_layer=layer,
        block_layer=_find_enclosing_block(name, layer, layers),
        head_count=shape.head_count,
        query_count=shape.query_count,
        is_global=shape.sums_to_one and sees_all,
    )


def _find_enclosing_block(name: str, layer: Layer, layers: Sequence[Layer]) -> Layer:
    """The block around an attention module, or its input layer if the block changes the grid."""
    same_tokens = [
        around
        for around in layers
        if name.startswith(f"{around.module_name}.")
        and around.grid == layer.grid
        and around.prefix_token_count == layer.prefix_token_count
    ]
    blocks = [around for around in same_tokens if around.block is not None]
    return next(iter((*blocks, *same_tokens)), layer)


def find_chosen_attention(
    layers: Sequence[Layer], names: Sequence[str], blocks: Sequence[Layer]
) -> list[int]:
    """Indices of the attention inside the chosen layers, or in whose block these are, in order.

    `names` are the attention modules, `blocks` the outputs of their blocks. Raises MethodError for
    a layer without such attention.
    """
    found: set[int] = set()
    for layer in layers:
        inside = {n for n, name in enumerate(names) if name.startswith(f"{layer.module_name}.")}
        around = {
            n
            for n, block in enumerate(blocks)
            if f"{layer.module_name}.".startswith(f"{block.module_name}.")
        }
        if not inside | around:
            raise MethodError(
                f"{layer.name} has no attention over all patch tokens; "
                f"choose from {format_layer_list(blocks)}"
            )
        found |= inside or around
    return sorted(found)


def unsupported_attention_message(modules: Sequence[AttentionModule]) -> str:
    """Describe the attention of a model that lacks global softmax attention in some block."""
    if not modules:
        return "no attention"
    if not any(module.is_global for module in modules):
        return "attention in windows, over channels, or with hidden matrices"
    if not all(module.is_global for module in modules):
        return "attention of other kinds too"
    return "attention of another kind" if has_one_grid(modules) else "attention on several grids"


def has_one_grid(modules: Sequence[AttentionModule]) -> bool:
    """Whether all attention modules read maps of the same grid; in pyramids they do not."""
    return len({module.input_layer.grid for module in modules}) == 1


@contextmanager
def disable_fused_attention(modules: Sequence[Any]) -> Iterator[None]:
    """Inside the context timm's attention runs without the fused kernel, which hides matrices."""
    before = [(module, module.fused_attn) for module in modules if hasattr(module, "fused_attn")]
    try:
        for module, _ in before:
            module.fused_attn = False
        yield
    finally:
        for module, fused in before:
            module.fused_attn = fused
