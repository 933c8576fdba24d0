"""The transformer as it is trained: it reads cached features in windows of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.zoo.builtin_networks import (
    CLS_HEAD_PREFIX,
    IMAGENET_CLASS_COUNT,
    VIT_WIDTH,
    create_builtin_vit,
)
from camcli.training.logistic_regression import compute_window_means
from recipes.vit_lite0.feature_cache import ViewFeatures

MAX_SCALE_SAMPLES = 2000  # views from which the features' scale is measured


@dataclass(frozen=True, slots=True)
class StudentOutput:
    """Logits of both heads (B,K), CLS attention summed over blocks (B,H,W), tokens (B,H,W,D)."""

    conv_logits: Tensor
    cls_logits: Tensor
    cls_attention: Tensor
    tokens: Tensor


class Student(nn.Module):
    """The built-in transformer without the CNN under it, and both of its heads."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, views: ViewFeatures) -> None:
        super().__init__()
        self.vit: Any = create_builtin_vit()
        self.vit.patch_embed.backbone = nn.Identity()
        self.conv = nn.Conv2d(VIT_WIDTH, IMAGENET_CLASS_COUNT, kernel_size=3, padding=1)
        chosen = torch.randperm(len(views.middle))[:MAX_SCALE_SAMPLES]
        parts = [part[chosen].float().flatten(0, 2) for part in (views.middle, views.deep)]
        self.register_buffer("mean", torch.cat([part.mean(dim=0) for part in parts]))
        self.register_buffer("deviation", torch.cat([part.std(dim=0) for part in parts]) + 1e-3)

    def forward(self, middle: Tensor, deep: Tensor, corner: tuple[int, int]) -> StudentOutput:
        """The output for a window of features, whose top left cell on the grid is `corner`."""
        rows, cols = middle.shape[1:3]
        features = (_join_features(middle, deep) - self.mean) / self.deviation
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self._embed(features, corner)
            cls_rows = []
            for block in self.vit.blocks:
                tokens, cls_row = run_block_with_attention(block, tokens)
                cls_rows.append(cls_row)
            tokens = self.vit.norm(tokens).float()
        return StudentOutput(
            conv_logits=self._compute_conv_logits(tokens, (rows, cols)),
            cls_logits=self.vit.head(tokens[:, 0]),
            cls_attention=torch.stack(cls_rows).sum(dim=0)[:, 1:].reshape(-1, rows, cols),
            tokens=tokens[:, 1:].reshape(len(tokens), rows, cols, -1),
        )

    def _embed(self, features: Tensor, corner: tuple[int, int]) -> Tensor:
        """CLS and the projected cells, with position embeddings: (B,h,w,C) -> (B, 1 + h w, D)."""
        projection = self.vit.patch_embed.proj
        patches = nn.functional.linear(
            features.flatten(1, 2), projection.weight.flatten(1), projection.bias
        )
        cls = self.vit.cls_token.expand(len(patches), -1, -1)
        rows, cols = features.shape[1:3]
        positions = self._select_position_embeddings(corner, rows, cols)
        return torch.cat([cls, patches], dim=1) + positions

    def _select_position_embeddings(self, corner: tuple[int, int], rows: int, cols: int) -> Tensor:
        """Position embeddings of CLS and of the window: (1, 1 + rows * cols, D)."""
        embeddings: Tensor = self.vit.pos_embed
        grid = embeddings[:, 1:].reshape(1, *self.vit.patch_embed.grid_size, -1)
        window = grid[:, corner[0] : corner[0] + rows, corner[1] : corner[1] + cols]
        return torch.cat([embeddings[:, :1], window.flatten(1, 2)], dim=1)

    def _compute_conv_logits(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        means, bias = compute_window_means(tokens, 1, grid), self.conv.bias
        assert bias is not None
        return means @ self.conv.weight.flatten(1).T + bias

    def compute_semantic_maps(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """The convolution's maps of some classes only: (B,H,W,D), (B,S) -> (B,S,H,W)."""
        number, rows, cols, width = tokens.shape
        weight = self.conv.weight[classes].permute(0, 2, 1, 3, 4).reshape(number, width, -1)
        products = (tokens.flatten(1, 2) @ weight).reshape(number, rows, cols, -1, 3, 3)
        padded = nn.functional.pad(products.permute(0, 3, 4, 5, 1, 2), (1, 1, 1, 1))
        parts = [padded[:, :, u, v, u : u + rows, v : v + cols] for u in range(3) for v in range(3)]
        assert self.conv.bias is not None
        return torch.stack(parts).sum(dim=0) + self.conv.bias[classes][..., None, None]

    def export_state_dict(self) -> dict[str, Tensor]:
        """The weights as they ship: the features' scale folded into the projection, both heads."""
        state = {key: value.detach().clone() for key, value in self.vit.state_dict().items()}
        weight = state["patch_embed.proj.weight"] / self.deviation[None, :, None, None]
        state["patch_embed.proj.bias"] -= weight[:, :, 0, 0] @ self.mean
        state["patch_embed.proj.weight"] = weight
        body = {key: value for key, value in state.items() if not key.startswith("head.")}
        return (
            body
            | _add_prefix(CLS_HEAD_PREFIX, self.vit.head.state_dict())
            | _add_prefix("head.", self.conv.state_dict())
        )


def _join_features(middle: Tensor, deep: Tensor) -> Tensor:
    """(B,2h,2w,112) and (B,h,w,320), each of these cells four times -> (B,2h,2w,432)."""
    return torch.cat([middle, deep.repeat_interleave(2, 1).repeat_interleave(2, 2)], dim=-1)


def _add_prefix(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value.detach() for key, value in state.items()}


def run_block_with_attention(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A pre-norm block's output (B,N,D), and its attention's CLS row, heads averaged (B,N)."""
    attention = block.attn
    number, length, width = tokens.shape
    qkv = attention.qkv(block.norm1(tokens))
    split = qkv.reshape(number, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = split.unbind(0)
    matrix = ((query * attention.scale) @ key.transpose(-2, -1)).float().softmax(dim=-1)
    mixed = (matrix.to(value.dtype) @ value).transpose(1, 2).reshape(number, length, width)
    tokens = tokens + attention.proj(mixed)
    return tokens + block.mlp(block.norm2(tokens)), matrix[:, :, 0].mean(dim=1)
