"""From attention to the patch grid: its CLS row, or all of it. Knows no methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.models.introspection.hooks import TensorFunction, find_module, record_outputs
from camcli.models.introspection.layers import create_probe_image, find_attribute, select_patches
from camcli.models.introspection.quirks import ArchitectureQuirks


@dataclass(frozen=True, slots=True)
class AttentionModule:
    """One attention module and the shape of its matrices: (B,heads,queries,N), rows summing to 1.

    `layer` is the map that it reads, whose tokens are its N; `block` the layer that shows it.
    """

    name: str
    module: Any
    input_layer: Layer
    block_layer: Layer
    head_count: int
    query_count: int
    is_global: bool

    def to_matrix(self, recorded_attention: Tensor) -> Tensor:
        """(B,heads,Q,N) of what `attn_drop` hands on, which may have heads beside images."""
        return recorded_attention.reshape(
            -1, self.head_count, self.query_count, self.input_layer.token_count
        )


@dataclass(frozen=True, slots=True)
class ClsRowReader:
    """How to read the attention of CLS to the patches in each block.

    `readings` taps a layer of each block and reduces it to (B, H*W); `unfused` holds the attention
    modules whose fused kernel hides the matrix, and must be off for that.
    """

    block_layers: tuple[Layer, ...]
    reducers: dict[str, TensorFunction]
    fused_modules: tuple[Any, ...] = ()

    def stack_maps(self, reduced_outputs: dict[str, Tensor]) -> Tensor:
        """The rows of all blocks as maps (B, L, H, W), averaged over heads."""
        rows = torch.stack([reduced_outputs[name] for name in self.reducers], dim=1)
        return rows.reshape(*rows.shape[:2], *self.block_layers[0].grid)


def find_attention_modules(
    network: nn.Module, quirks: ArchitectureQuirks, layers: Sequence[Layer], size: tuple[int, int]
) -> tuple[AttentionModule, ...]:
    """Every attention module that mixes places, measured on a probe; `whole` if over all tokens.

    Those of another kind (windows, pooled keys, channels, talking heads) are there, and not whole.
    """
    fed = {
        name: layer
        for layer in layers
        for name in layer.attention_consumers
        if name.rsplit(".", 1)[-1] not in quirks.ignored_attention
    }
    modules = [find_module(network, name) for name in fed]
    drops = [
        f"{n}.attn_drop" for n, m in zip(fed, modules, strict=True) if _has_attention_dropout(m)
    ]
    if not fed:
        return ()
    with (
        disable_fused_attention(modules),
        record_outputs(network, reducers=dict.fromkeys(drops, _measure_matrix)) as recorded,
    ):
        network(create_probe_image(network, size))
    seen = {n.removesuffix(".attn_drop"): found for n, found in recorded.reduced_outputs.items()}
    return tuple(
        AttentionModule(
            name,
            m,
            layer,
            _find_enclosing_block(name, layer, layers),
            *_unpack_measurement(layer, seen.get(name)),
        )
        for m, (name, layer) in zip(modules, fed.items(), strict=True)
    )


def _has_attention_dropout(attention: nn.Module) -> bool:
    return isinstance(getattr(attention, "attn_drop", None), nn.Module)


def _measure_matrix(seen: Tensor) -> Tensor:
    """What must be known of matrices, which are too large to keep: heads, Q, N, and if all is 1."""
    sums = seen.sum(dim=-1)
    one = torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
    plain = 3 <= seen.ndim <= 4
    return torch.tensor([*seen.shape[-3:], int(one)] if plain else [0, 0, 0, 0])


def _unpack_measurement(layer: Layer, seen: Tensor | None) -> tuple[int, int, bool]:
    """Heads, queries, and whether they see all tokens of a layer and nothing else."""
    heads, queries, keys, one = (0, 0, 0, 0) if seen is None else map(int, seen)
    whole = keys == layer.token_count and queries in (1, layer.token_count)
    return heads, queries, bool(one) and whole


def _find_enclosing_block(name: str, layer: Layer, layers: Sequence[Layer]) -> Layer:
    """The block around an attention module, or what it reads where the block ends otherwise."""
    around = [la for la in layers if name.startswith(f"{la.module_name}.")]
    same = [
        la
        for la in around
        if (la.grid, la.prefix_token_count) == (layer.grid, layer.prefix_token_count)
    ]
    numbered = [la for la in same if la.block is not None]
    return next(iter((*numbered, *same)), layer)


def unsupported_attention_message(modules: Sequence[AttentionModule]) -> str:
    """In words, why attention cannot be followed through the whole network."""
    if not modules:
        return "no attention"
    if not any(softmax.is_global for softmax in modules):
        return "attention in windows, over channels, or whose matrices cannot be seen"
    if not all(softmax.is_global for softmax in modules):
        return "attention of other kinds too"
    return (
        "attention on several grids" if _count_grids(modules) > 1 else "attention of another kind"
    )


def _count_grids(modules: Sequence[AttentionModule]) -> int:
    return len({softmax.input_layer.grid for softmax in modules})


def find_cls_row_reader(
    network: nn.Module, modules: Sequence[AttentionModule], size: tuple[int, int]
) -> ClsRowReader | None:
    """The cheapest reading that is right for this network; None where there is no global attention.

    From `qkv` alone the row is softmax(q_cls K^T scale), with the fused kernel left on. Whether
    that is all this network's attention does (no relative positions, no rotation) is measured
    against the full matrices on a probe; otherwise the matrices are read. Only blocks in which
    there is a CLS token are read; without any, the mean over all tokens, if all attention is whole.
    """
    has_cls = find_attribute(network, "cls_token") is not None
    used = [s for s in modules if s.is_global and (s.input_layer.prefix_token_count or not has_cls)]
    if not used or _count_grids(used) > 1 or not (has_cls or all(s.is_global for s in modules)):
        return None
    queries = slice(0, 1) if has_cls else slice(None)
    blocks = tuple(softmax.block_layer for softmax in used)
    full = ClsRowReader(
        blocks,
        {f"{s.name}.attn_drop": partial(matrix_to_cls_row, s, queries) for s in used},
        tuple(s.module for s in used),
    )
    short = ClsRowReader(
        blocks,
        {
            f"{s.name}.qkv": partial(
                qkv_to_cls_row, s.module, s.input_layer.prefix_token_count, queries
            )
            for s in used
        },
    )
    image = create_probe_image(network, size)
    expected, cheap = (_compute_probe_rows(network, reading, image) for reading in (full, short))
    if expected is None:
        return None
    same = cheap is not None and torch.allclose(cheap, expected, rtol=1e-3, atol=1e-6)
    return short if same else full


def _compute_probe_rows(network: nn.Module, reading: ClsRowReader, image: Tensor) -> Tensor | None:
    """The rows of a probe image, or None where the network has no such layers or shapes."""
    try:
        with (
            disable_fused_attention(reading.fused_modules),
            record_outputs(network, reducers=reading.reducers) as recorded,
        ):
            network(image)
        return reading.stack_maps(recorded.reduced_outputs)
    except (AttributeError, KeyError, RuntimeError, IndexError):
        return None


def matrix_to_cls_row(
    attention_module: AttentionModule, query_slice: slice, recorded_attention: Tensor
) -> Tensor:
    """Mean over heads and the chosen queries of softmax attention: (B,heads,Q,N) -> (B,H*W)."""
    rows = (
        attention_module.to_matrix(recorded_attention)[:, :, query_slice].float().mean(dim=(1, 2))
    )
    return select_patches(rows, attention_module.input_layer)


def qkv_to_cls_row(attention: Any, prefix: int, query_slice: slice, qkv: Tensor) -> Tensor:
    """softmax(q K^T scale) for the chosen queries only: (B,N,3C) -> (B,H*W).

    600 times less memory than the matrices at 576 patches, and equal to them within 5e-9.
    """
    q, k, _ = qkv.reshape(*qkv.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q[:, :, query_slice]), attention.k_norm(k)
    scores = q.float() @ k.float().transpose(-2, -1) * attention.scale
    rows: Tensor = scores.softmax(dim=-1).mean(dim=(1, 2))
    return rows[:, prefix:]


@dataclass(frozen=True, slots=True)
class AttentionMatrixReader:
    """Where each block's whole attention is tapped, by `names`; as (B,heads,N,N) by `filled`.

    `queries` are the tokens that the classifier reads: their rows say what its answer draws on.
    `summary` are those that sum the image up, whatever is read: CLS, or else the same.
    """

    modules: tuple[AttentionModule, ...]
    query_indices: tuple[int, ...]
    summary_indices: tuple[int, ...]

    @property
    def block_layers(self) -> tuple[Layer, ...]:
        """The layers that show the blocks."""
        return tuple(softmax.block_layer for softmax in self.modules)

    @property
    def hook_names(self) -> tuple[str, ...]:
        """What is tapped of each block."""
        return tuple(f"{softmax.name}.attn_drop" for softmax in self.modules)

    @property
    def fused_modules(self) -> tuple[Any, ...]:
        """The attention modules, whose fused kernel, if any, hides the matrix."""
        return tuple(softmax.module for softmax in self.modules)

    def pad_matrices(self, recorded_attention: Sequence[Tensor], diagonal: float) -> list[Tensor]:
        """All matrices at the size of the largest: (B,heads,N,N).

        Tokens that are not there yet, or that a block does not update (class attention), see
        themselves: `diagonal` is 1 for attention and 0 for its gradients.
        """
        tokens = max(softmax.input_layer.token_count for softmax in self.modules)
        found = (
            s.to_matrix(m).float() for s, m in zip(self.modules, recorded_attention, strict=True)
        )
        return [_pad_matrix(matrix, tokens, diagonal) for matrix in found]

    def tokens_to_map(self, tokens: Tensor, *, summary: bool = False) -> Tensor:
        """From tokens to tokens (B,N,N), or from the answer to tokens (B,1,N): a map (B,H,W)."""
        queries = list(self.summary_indices if summary else self.query_indices)
        rows = tokens if tokens.shape[1] == 1 else tokens[:, queries]
        last = self.modules[-1].input_layer
        return select_patches(rows.mean(dim=1), last).reshape(-1, *last.grid)


def _pad_matrix(matrix: Tensor, tokens: int, diagonal: float) -> Tensor:
    queries, keys = matrix.shape[-2:]
    if queries == keys == tokens:
        return matrix
    whole = matrix.new_zeros(*matrix.shape[:2], tokens, tokens)
    whole.diagonal(dim1=-2, dim2=-1).fill_(diagonal)
    top = 0 if queries < keys else tokens - queries
    whole[..., top : top + queries, tokens - keys :] = matrix
    return whole


def find_matrix_reader(
    network: nn.Module, modules: Sequence[AttentionModule], size: tuple[int, int]
) -> AttentionMatrixReader | None:
    """Where the attention of all blocks can be tapped; None unless it is softmax over all tokens.

    Which tokens the classifier reads is measured: those of the last block's output on which the
    logits of a probe depend.
    """
    if (
        not modules
        or not all(softmax.is_global for softmax in modules)
        or _count_grids(modules) > 1
    ):
        return None
    last = modules[-1].block_layer
    with record_outputs(network, graph_layers=[last.name]) as recorded:
        logits = network(create_probe_image(network, size))
        if not logits.requires_grad:  # the network keeps gradients to itself
            return None
        (gradient,) = torch.autograd.grad(
            logits.max(), recorded.graph_outputs[last.name], materialize_grads=True
        )
    by_token = gradient[0].flatten(1).T if last.layout == "NCHW" else gradient[0].flatten(0, -2)
    live = by_token.any(dim=1).nonzero().flatten().tolist()
    read = tuple(live) if modules[-1].query_count > 1 else (0,)
    has_cls = (
        find_attribute(network, "cls_token") is not None
        and modules[-1].input_layer.prefix_token_count
    )
    return AttentionMatrixReader(tuple(modules), read, (0,) if has_cls else read)


@contextmanager
def disable_fused_attention(modules: Sequence[Any]) -> Iterator[None]:
    """Turn the fused kernels off where the matrices must be seen, and back as they were."""
    fused = [(m, bool(m.fused_attn)) for m in modules if hasattr(m, "fused_attn")]
    try:
        for each, _ in fused:
            each.fused_attn = False
        yield
    finally:
        for each, before in fused:
            each.fused_attn = before
