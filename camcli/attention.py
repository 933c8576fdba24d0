"""From a block's attention to the patch grid: its CLS row, or all of it. Knows no methods."""

from __future__ import annotations

import math
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
        with unfuse(rows.unfused), record(network, readings=rows.readings) as recorded:
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


@dataclass(frozen=True, slots=True)
class Matrices:
    """Where each block's whole attention is tapped: (B,heads,N,N) under its name in `names`.

    `queries` are the tokens that the classifier reads: their rows say what its answer draws on.
    `summary` are those that sum the image up, whatever is read: CLS, or else the same.
    """

    blocks: tuple[Layer, ...]
    names: tuple[str, ...]
    unfused: tuple[Any, ...]
    queries: tuple[int, ...]
    summary: tuple[int, ...]

    def read(self, tokens: Tensor, *, summary: bool = False) -> Tensor:
        """From tokens to tokens (B,N,N), or from the answer to tokens (B,1,N): a map (B,H,W)."""
        queries = list(self.summary if summary else self.queries)
        rows = tokens if tokens.shape[1] == 1 else tokens[:, queries]
        patches = rows.mean(dim=1)[:, self.blocks[0].prefix :]
        return patches.reshape(-1, *self.blocks[0].grid)


def matrices(network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]) -> Matrices | None:
    """Where the attention of all blocks can be tapped; None unless it is softmax over all tokens.

    Which tokens the classifier reads is measured: those of the last block's output on which the
    logits of a probe depend.
    """
    blocks = tuple(layer for layer in layers if layer.block is not None)
    modules = tuple(getattr(network.get_submodule(b.name), "attn", None) for b in blocks)
    names = tuple(f"{block.name}.attn.attn_drop" for block in blocks)
    unfused = tuple(m for m in modules if hasattr(m, "fused_attn"))
    if not blocks or any(not hasattr(m, "attn_drop") for m in modules):
        return None
    with unfuse(unfused), record(network, taps=(*names, blocks[-1].name)) as recorded:
        logits = network(probe(network, size))
    seen = [recorded.taps.get(name) for name in names]
    count = blocks[0].prefix + math.prod(blocks[0].grid)
    if not all(m is not None and _whole(m, count) for m in seen):
        return None
    (gradient,) = torch.autograd.grad(logits.max(), recorded.taps[blocks[-1].name])
    read = tuple(gradient[0].any(dim=1).nonzero().flatten().tolist())
    has_cls = getattr(network, "cls_token", None) is not None and blocks[0].prefix
    return Matrices(blocks, names, unfused, read, (0,) if has_cls else read)


def _whole(matrix: Tensor, count: int) -> bool:
    """Whether it is a softmax over all tokens: (1,heads,N,N), its rows summing to 1."""
    sums = matrix.detach().sum(dim=-1)
    return matrix.shape[2:] == (count, count) and torch.allclose(sums, torch.ones_like(sums))


@contextmanager
def unfuse(modules: Sequence[Any]) -> Iterator[None]:
    """Turn the fused kernels off where the matrices must be seen, and back as they were."""
    before = [bool(m.fused_attn) for m in modules]
    try:
        for module in modules:
            module.fused_attn = False
        yield
    finally:
        for module, fused in zip(modules, before, strict=True):
            module.fused_attn = fused
