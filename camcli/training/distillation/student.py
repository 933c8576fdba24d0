"""The transformer in training: on cached features, windows of any size, with CLS attention kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.zoo.builtin import (
    CLS_HEAD_PREFIX,
    IMAGENET_CLASS_COUNT,
    VIT_WIDTH,
    create_builtin_vit,
)
from camcli.training.distillation.feature_cache import ViewFeatures
from camcli.training.logistic_regression import compute_window_means

MAX_SCALE_SAMPLES = 2000  # views from which the features' scale is measured


@dataclass(frozen=True, slots=True)
class StudentOutput:
    """Logits of both heads (B,K), CLS attention summed over blocks (B,H,W), tokens (B,H,W,D)."""

    conv_logits: Tensor
    cls_logits: Tensor
    cls_attention: Tensor
    tokens: Tensor


class Student(nn.Module):
    """The embedded transformer without the CNN under it, and both of its heads."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, views: ViewFeatures) -> None:
        super().__init__()
        whole = create_builtin_vit()
        self.vit: Any = whole
        self.vit.patch_embed.backbone = nn.Identity()
        self.conv = nn.Conv2d(VIT_WIDTH, IMAGENET_CLASS_COUNT, kernel_size=3, padding=1)
        some = torch.randperm(len(views.middle))[:MAX_SCALE_SAMPLES]
        parts = [part[some].float().flatten(0, 2) for part in (views.middle, views.deep)]
        self.register_buffer("mean", torch.cat([part.mean(dim=0) for part in parts]))
        self.register_buffer("deviation", torch.cat([part.std(dim=0) for part in parts]) + 1e-3)

    def forward(self, middle: Tensor, deep: Tensor, corner: tuple[int, int]) -> StudentOutput:
        """What it says of a window of features whose corner is at `at` on the grid."""
        vit, (rows, cols) = self.vit, middle.shape[1:3]
        near = deep.repeat_interleave(2, 1).repeat_interleave(2, 2)
        features = (torch.cat([middle, near], dim=-1) - self.mean) / self.deviation
        with torch.autocast("cpu", torch.bfloat16):
            projection = vit.patch_embed.proj
            patches = nn.functional.linear(
                features.flatten(1, 2), projection.weight.flatten(1), projection.bias
            )
            cls = vit.cls_token.expand(len(patches), -1, -1)
            tokens = torch.cat([cls, patches], dim=1) + self._select_position_embeddings(
                corner, rows, cols
            )
            rows_of = []
            for block in vit.blocks:
                tokens, row = run_block_with_attention(block, tokens)
                rows_of.append(row)
            tokens = vit.norm(tokens).float()
        means, bias = compute_window_means(tokens, 1, (rows, cols)), self.conv.bias
        assert bias is not None
        attention = torch.stack(rows_of).sum(dim=0)[:, 1:].reshape(-1, rows, cols)
        return StudentOutput(
            means @ self.conv.weight.flatten(1).T + bias,
            vit.head(tokens[:, 0]),
            attention,
            tokens[:, 1:].reshape(len(tokens), rows, cols, -1),
        )

    def _select_position_embeddings(self, at: tuple[int, int], rows: int, cols: int) -> Tensor:
        """Position embeddings of CLS and of the window: (1, 1 + rows * cols, D)."""
        whole: Tensor = self.vit.pos_embed
        grid = whole[:, 1:].reshape(1, *self.vit.patch_embed.grid_size, -1)
        window = grid[:, at[0] : at[0] + rows, at[1] : at[1] + cols]
        return torch.cat([whole[:, :1], window.flatten(1, 2)], dim=1)

    def compute_semantic_maps(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """The convolution's maps of some classes only: (B,H,W,D), (B,S) -> (B,S,H,W)."""
        number, rows, cols, width = tokens.shape
        weight = self.conv.weight[classes].permute(0, 2, 1, 3, 4).reshape(number, width, -1)
        taps = (tokens.flatten(1, 2) @ weight).reshape(number, rows, cols, -1, 3, 3)
        padded = nn.functional.pad(taps.permute(0, 3, 4, 5, 1, 2), (1, 1, 1, 1))
        parts = [padded[:, :, u, v, u : u + rows, v : v + cols] for u in range(3) for v in range(3)]
        assert self.conv.bias is not None
        return torch.stack(parts).sum(dim=0) + self.conv.bias[classes][..., None, None]

    def export_state_dict(self) -> dict[str, Tensor]:
        """What is stored: the features' scale folded into the projection, both heads."""
        state = {key: value.detach().clone() for key, value in self.vit.state_dict().items()}
        scale = self.deviation[None, :, None, None]
        weight = state["patch_embed.proj.weight"] / scale
        state["patch_embed.proj.bias"] -= weight[:, :, 0, 0] @ self.mean
        state["patch_embed.proj.weight"] = weight
        heads = {CLS_HEAD_PREFIX: self.vit.head, "head.": self.conv}
        own = {key: value for key, value in state.items() if not key.startswith("head.")}
        for prefix, head in heads.items():
            own |= {prefix + key: value.detach() for key, value in head.state_dict().items()}
        return own


def run_block_with_attention(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A pre-norm block, and the CLS row of its attention, heads averaged: (B,N,D) -> (B,N)."""
    attention = block.attn
    number, length, width = tokens.shape
    qkv = attention.qkv(block.norm1(tokens))
    split = qkv.reshape(number, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = split.unbind(0)
    matrix = ((query * attention.scale) @ key.transpose(-2, -1)).float().softmax(dim=-1)
    mixed = (matrix.to(value.dtype) @ value).transpose(1, 2).reshape(number, length, width)
    tokens = tokens + attention.proj(mixed)
    return tokens + block.mlp(block.norm2(tokens)), matrix[:, :, 0].mean(dim=1)
