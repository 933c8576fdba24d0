"""A vision transformer on the maps of a CNN, in plain torch: `import timm` would take seconds.

Modules, their names, the order of the weights and the operations are those of timm's
`VisionTransformer` with a `HybridEmbed`. Sources: https://arxiv.org/abs/2010.11929,
https://arxiv.org/abs/2012.12877
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MLP_RATIO = 4
NORM_EPSILON = 1e-6


class Attention(nn.Module):
    """Self-attention with several heads: (B,N,C) -> (B,N,C).

    The fused kernel hides the matrices; with `fused_attn` False they are the output of `attn_drop`.
    """

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = head_count, width // head_count
        self.scale = self.head_dim**-0.5
        self.fused_attn = True
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.Identity(), nn.Identity()
        self.attn_drop = nn.Dropout(0.0)
        self.norm = nn.Identity()
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)."""
        batch, count, width = tokens.shape
        split = self.qkv(tokens).reshape(batch, count, 3, self.num_heads, self.head_dim)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.fused_attn:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            matrix = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
            mixed = self.attn_drop(matrix) @ v
        joined = mixed.transpose(1, 2).reshape(batch, count, width)
        output: Tensor = self.proj_drop(self.proj(self.norm(joined)))
        return output


class Mlp(nn.Module):
    """Two linear layers with GELU between them, for each token: (B,N,C) -> (B,N,C)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner_width)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(0.0)
        self.norm = nn.Identity()
        self.fc2 = nn.Linear(inner_width, width)
        self.drop2 = nn.Dropout(0.0)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)."""
        inner = self.norm(self.drop1(self.act(self.fc1(tokens))))
        output: Tensor = self.drop2(self.fc2(inner))
        return output


class Block(nn.Module):
    """Attention and MLP, each after a norm and added to its input: (B,N,C) -> (B,N,C)."""

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, NORM_EPSILON)
        self.attn = Attention(width, head_count)
        self.ls1, self.drop_path1 = nn.Identity(), nn.Identity()
        self.norm2 = nn.LayerNorm(width, NORM_EPSILON)
        self.mlp = Mlp(width, MLP_RATIO * width)
        self.ls2, self.drop_path2 = nn.Identity(), nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,N,C) -> (B,N,C)."""
        tokens = tokens + self.drop_path1(self.ls1(self.attn(self.norm1(tokens))))
        output: Tensor = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return output


class HybridEmbed(nn.Module):
    """Each position of a CNN's maps as a token: (B,3,H,W) -> (B,h*w,C).

    `grid_size` is (h,w).
    """

    def __init__(
        self, backbone: nn.Module, feature_channels: int, width: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.grid_size, self.patch_size = grid, (1, 1)
        self.backbone = backbone
        self.proj = nn.Conv2d(feature_channels, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,h*w,C)."""
        maps: Tensor = self.proj(self.backbone(images))
        return maps.flatten(2).transpose(1, 2)


class HybridVisionTransformer(nn.Module):
    """Images (B,3,H,W) -> logits (B,K), read from the CLS token.

    After `reset_classifier(0, "")` the head gets all tokens (B,1+h*w,C). `feature_info` lists the
    blocks, as timm does.
    """

    def __init__(
        self, embedding: HybridEmbed, width: int, depth: int, head_count: int, num_classes: int
    ) -> None:
        super().__init__()
        rows, columns = embedding.grid_size
        self.num_classes, self.global_pool = num_classes, "token"
        self.num_features = self.embed_dim = width
        self.num_prefix_tokens = 1
        self.patch_embed = embedding
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + rows * columns, width))
        self.pos_drop = nn.Dropout(0.0)
        self.patch_drop, self.norm_pre = nn.Identity(), nn.Identity()
        self.blocks = nn.Sequential(*(Block(width, head_count) for _ in range(depth)))
        self.feature_info: list[dict[str, Any]] = [
            {"module": f"blocks.{number}", "num_chs": width} for number in range(depth)
        ]
        self.norm = nn.LayerNorm(width, NORM_EPSILON)
        self.fc_norm = nn.Identity()
        self.head_drop = nn.Dropout(0.0)
        self.head: nn.Module = _create_head(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) -> logits (B,K)."""
        patches = self.patch_embed(images)
        cls = self.cls_token.expand(len(images), -1, -1)
        tokens = self.pos_drop(torch.cat([cls, patches], dim=1) + self.pos_embed)
        tokens = self.norm(self.blocks(self.norm_pre(self.patch_drop(tokens))))
        read = tokens[:, 0] if self.global_pool == "token" else tokens
        logits: Tensor = self.head(self.head_drop(self.fc_norm(read)))
        return logits

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str = "token") -> None:
        """Replace the classifier; 0 removes it, and "" gives it all tokens."""
        self.num_classes, self.global_pool = num_classes, global_pool
        self.head = _create_head(self.embed_dim, num_classes)


def initialize_transformer(network: HybridVisionTransformer) -> None:
    """Random weights for training, as timm has them; those of the backbone stay."""
    nn.init.trunc_normal_(network.pos_embed, std=0.02)
    nn.init.normal_(network.cls_token, std=1e-6)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def _create_head(width: int, class_count: int) -> nn.Module:
    return nn.Linear(width, class_count) if class_count else nn.Identity()
