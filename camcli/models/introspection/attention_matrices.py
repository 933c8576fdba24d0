"""Read the whole attention matrices of all blocks, and the tokens that the classifier reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.models.introspection.attention_modules import (
    AttentionModule,
    find_chosen_attention,
    has_one_grid,
)
from camcli.models.introspection.class_token_attention import find_class_tokens
from camcli.models.introspection.hooks import TensorFunction, record_outputs
from camcli.models.introspection.layouts import select_patches
from camcli.models.introspection.probe import create_probe_image, find_attribute


@dataclass(frozen=True, slots=True)
class AttentionMatrixReader:
    """Records the attention of each block, and pads it to matrices (B,heads,N,N).

    `query_indices` are the tokens that the classifier reads. `summary_indices` are the tokens that
    sum up the image: CLS if there is one, else those that the classifier reads. `last_layer` is
    the input of the network's last attention; tokens are counted and mapped as there. With
    `class_token_count`, the class score is read from the class's own token, one of the first;
    `reads_patches` says that it is read from patches too.
    """

    modules: tuple[AttentionModule, ...]
    query_indices: tuple[int, ...]
    summary_indices: tuple[int, ...]
    token_count: int
    last_layer: Layer
    class_token_count: int = 0
    reads_patches: bool = False

    def select_blocks(self, layers: Sequence[Layer]) -> AttentionMatrixReader:
        """Read only the attention of the blocks of these layers. Raises MethodError."""
        names = [module.name for module in self.modules]
        chosen = find_chosen_attention(layers, names, self.block_layers)
        return replace(self, modules=tuple(self.modules[n] for n in chosen))

    @property
    def block_layers(self) -> tuple[Layer, ...]:
        """The outputs of the blocks."""
        return tuple(module.block_layer for module in self.modules)

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The modules whose outputs are to be recorded, one per block."""
        return tuple(module.matrix_name for module in self.modules)

    @property
    def fused_modules(self) -> tuple[Any, ...]:
        """The attention modules, which must run without their fused kernel."""
        return tuple(module.module for module in self.modules)

    @property
    def mean_reducers(self) -> dict[str, TensorFunction]:
        """For each block, the mean of its attention over heads: (B,1,Q,N)."""
        return {module.matrix_name: partial(_average_heads, module) for module in self.modules}

    def average_patch_attention(self, head_means: Sequence[Tensor]) -> Tensor:
        """The mean attention between patches (B,HW,HW) of what `mean_reducers` recorded."""
        padded = [_pad_matrix(matrix, self.token_count, diagonal=1) for matrix in head_means]
        mean = torch.stack(padded).mean(dim=0)[:, 0]
        queries = select_patches(mean, self.last_layer).transpose(1, 2)
        return select_patches(queries, self.last_layer).transpose(1, 2)

    def pad_matrices(self, recorded_attention: Sequence[Tensor], diagonal: float) -> list[Tensor]:
        """All matrices at the size of the network's largest: (B,heads,N,N).

        A token that a block does not have yet, or does not update (class attention), attends to
        itself: `diagonal` is 1 for attention and 0 for gradients of attention.
        """
        return [
            _pad_matrix(module.to_matrix(recorded).float(), self.token_count, diagonal)
            for module, recorded in zip(self.modules, recorded_attention, strict=True)
        ]

    def tokens_to_map(
        self, tokens: Tensor, logit_weights: Tensor, *, summary: bool = False
    ) -> Tensor:
        """Relevance of tokens as a map (B,H,W).

        `tokens` is (B,N,N), from each token to each token, or (B,1,N), from the class score.
        Class tokens count as much as their logits weigh in the score, `logit_weights` (B,K).
        """
        if tokens.shape[1] == 1:
            row = tokens[:, 0]
        elif self.class_token_count:
            sizes = logit_weights.abs()
            weights = sizes / sizes.sum(dim=1, keepdim=True).clamp_min(1e-12)
            row = (weights[:, None] @ tokens[:, : self.class_token_count])[:, 0]
        else:
            queries = list(self.summary_indices if summary else self.query_indices)
            row = tokens[:, queries].mean(dim=1)
        return select_patches(row, self.last_layer).reshape(-1, *self.last_layer.grid)


def _average_heads(module: AttentionModule, recorded_attention: Tensor) -> Tensor:
    return module.to_matrix(recorded_attention).mean(dim=1, keepdim=True)


def _pad_matrix(matrix: Tensor, token_count: int, diagonal: float) -> Tensor:
    queries, keys = matrix.shape[-2:]
    if queries == keys == token_count:
        return matrix
    padded = matrix.new_zeros(*matrix.shape[:2], token_count, token_count)
    padded.diagonal(dim1=-2, dim2=-1).fill_(diagonal)
    first_row = 0 if queries < keys else token_count - queries
    padded[..., first_row : first_row + queries, token_count - keys :] = matrix
    return padded


def find_matrix_reader(
    network: nn.Module, modules: Sequence[AttentionModule], size: tuple[int, int]
) -> AttentionMatrixReader | None:
    """A reader of all matrices; None unless every block has global attention on the same grid.

    The tokens that the classifier reads are measured: those tokens of the last block's output that
    have a gradient of the predicted class, for the probe image.
    """
    if not modules or not all(module.is_global for module in modules) or not has_one_grid(modules):
        return None
    last = modules[-1]
    live = _find_live_tokens(network, last.block_layer, size)
    if live is None:
        return None
    read = live if last.query_count > 1 else (0,)
    has_cls = find_attribute(network, "cls_token") is not None
    tokens = find_class_tokens(network)
    has_cls = has_cls and not tokens  # the first token is that of the first class
    summary = (0,) if has_cls and last.input_layer.prefix_token_count else read
    count = tokens.count if tokens and min(live, default=0) < tokens.count else 0
    return AttentionMatrixReader(
        modules=tuple(modules),
        query_indices=read,
        summary_indices=summary,
        token_count=max(module.input_layer.token_count for module in modules),
        last_layer=last.input_layer,
        class_token_count=count,
        reads_patches=max(live, default=-1) >= count,
    )


def _find_live_tokens(
    network: nn.Module, layer: Layer, size: tuple[int, int]
) -> tuple[int, ...] | None:
    """Indices of the tokens with a gradient; None if the network computes without gradients."""
    with record_outputs(network, graph_layers=[layer.name]) as recording:
        logits = network(create_probe_image(network, size))
        if not logits.requires_grad:
            return None
        (gradient,) = torch.autograd.grad(
            logits.max(), recording.graph_outputs[layer.name], materialize_grads=True
        )
    by_token = gradient[0].flatten(1).T if layer.layout == "NCHW" else gradient[0].flatten(0, -2)
    return tuple(by_token.any(dim=1).nonzero().flatten().tolist())
