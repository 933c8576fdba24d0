"""From a block's attention to the CLS row on the patch grid. Knows nothing of methods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.layers import probe
from camcli.records import Layer
from camcli.taps import Reading, record


@dataclass(frozen=True, slots=True)
class ClassRows:
    """How to read the attention of CLS to the patches in each block.

    `readings` taps a layer of each block and reduces it to (B, H*W); `unfused` holds the attention
    modules whose fused kernel hides the matrix, and must be off for that.
    """

    blocks: tuple[Layer, ...]
    readings: dict[str, Reading]
    unfused: tuple[Any, ...] = ()

    def stack(self, read: dict[str, Tensor]) -> Tensor:
        """The rows of all blocks as maps (B, L, H, W), averaged over heads."""
        rows = torch.stack([read[name] for name in self.readings], dim=1)
        return rows.reshape(*rows.shape[:2], *self.blocks[0].grid)


def find(network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]) -> ClassRows | None:
    """The cheapest reading that is right for this network; None where there is no global attention.

    From `qkv` alone the row is softmax(q_cls K^T scale), with the fused kernel left on. Whether
    that is all this network's attention does (no relative positions, no rotation) is measured
    against the full matrices on a probe; otherwise the matrices are read.
    """
    blocks = tuple(layer for layer in layers if layer.block is not None)
    modules = [getattr(network.get_submodule(b.name), "attn", None) for b in blocks]
    has_cls = getattr(network, "cls_token", None) is not None
    # A CLS token that joins after these blocks has no row in their attention.
    if not blocks or (has_cls and not blocks[0].prefix):
        return None
    queries = slice(0, 1) if has_cls else slice(None)
    full = ClassRows(
        blocks,
        {f"{b.name}.attn.attn_drop": partial(from_matrix, b.prefix, queries) for b in blocks},
        tuple(m for m in modules if m is not None and hasattr(m, "fused_attn")),
    )
    short = ClassRows(
        blocks,
        {
            f"{b.name}.attn.qkv": partial(from_qkv, m, b.prefix, queries)
            for b, m in zip(blocks, modules, strict=True)
        },
    )
    image = probe(network, size)
    expected, found = (_try(network, rows, image) for rows in (full, short))
    if expected is None:
        return None
    same = found is not None and torch.allclose(found, expected, rtol=1e-3, atol=1e-6)
    return short if same else full


def _try(network: nn.Module, rows: ClassRows, image: Tensor) -> Tensor | None:
    """The rows of a probe image, or None where the network has no such layers or shapes."""
    try:
        with unfuse(rows), record(network, readings=rows.readings) as recorded:
            network(image)
        return rows.stack(recorded.readings)
    except (AttributeError, KeyError, RuntimeError, IndexError):
        return None


def from_matrix(prefix: int, queries: slice, matrix: Tensor) -> Tensor:
    """Mean over heads and the chosen queries of softmax attention: (B,heads,N,N) -> (B,H*W)."""
    return matrix[:, :, queries].float().mean(dim=(1, 2))[:, prefix:]


def from_qkv(attention: Any, prefix: int, queries: slice, qkv: Tensor) -> Tensor:
    """softmax(q K^T scale) for the chosen queries only: (B,N,3C) -> (B,H*W).

    600 times less memory than the matrices at 576 patches, and equal to them within 5e-9.
    """
    q, k, _ = qkv.reshape(*qkv.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q[:, :, queries]), attention.k_norm(k)
    scores = q.float() @ k.float().transpose(-2, -1) * attention.scale
    rows: Tensor = scores.softmax(dim=-1).mean(dim=(1, 2))
    return rows[:, prefix:]


@contextmanager
def unfuse(rows: ClassRows | None) -> Iterator[None]:
    """Turn the fused kernels off where the matrices must be seen, and back as they were."""
    modules = rows.unfused if rows else ()
    before = [bool(m.fused_attn) for m in modules]
    try:
        for module in modules:
            module.fused_attn = False
        yield
    finally:
        for module, fused in zip(modules, before, strict=True):
            module.fused_attn = fused
