"""Conformer: a CNN branch and a transformer branch, with TS-CAM's classifier or its own.

Only for inference with trained weights: there is no stochastic depth. Attribute names are the keys
of the official checkpoints.
Sources: https://arxiv.org/abs/2105.03889 (Conformer), https://arxiv.org/abs/2103.14862 (TS-CAM)
"""

from __future__ import annotations

from functools import partial
from itertools import count, takewhile
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate

from camcli.core.errors import CheckpointError
from camcli.models.zoo.signatures import Shapes

# As in training. The stem's BatchNorm and the last LayerNorm have torch's default, 1e-5.
EPS = 1e-6
CONFORMER_INPUT_SIDE = 224


class _BottleneckBase(nn.Module):
    """The layers of both bottlenecks: convolutions 1x1, 3x3, 1x1; the middle is 4 times narrower.

    The shortcut is the input itself or, with `project`, BN(1x1(input)).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        narrow = outputs // 4
        self.conv1 = nn.Conv2d(inputs, narrow, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow, EPS)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow, EPS)
        self.act2 = nn.ReLU()
        self.conv3 = nn.Conv2d(narrow, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, EPS)
        self.act3 = nn.ReLU()
        self.project = project
        if project:
            self.residual_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.residual_bn = nn.BatchNorm2d(outputs, EPS)

    def _compute_middle(self, maps: Tensor, extra: Tensor | None = None) -> Tensor:
        """m = relu(BN(3x3(relu(BN(1x1(x))) + extra))): (B,C,H,W) -> (B,C'/4,H/stride,W/stride)."""
        first: Tensor = self.act1(self.bn1(self.conv1(maps)))
        joined = first if extra is None else first + extra
        middle: Tensor = self.act2(self.bn2(self.conv2(joined)))
        return middle

    def _compute_output(self, maps: Tensor, middle: Tensor) -> Tensor:
        """relu(BN(1x1(m)) + shortcut(x)): (B,C'/4,h,w) -> (B,C',h,w)."""
        shortcut = self.residual_bn(self.residual_conv(maps)) if self.project else maps
        wide: Tensor = self.act3(self.bn3(self.conv3(middle)) + shortcut)
        return wide


class Bottleneck(_BottleneckBase):
    """A bottleneck that adds maps from the tokens, if given, before its 3x3 convolution."""

    def forward(self, maps: Tensor, extra: Tensor | None = None) -> Tensor:
        """Maps (B,C,H,W), extra (B,C'/4,H,W) -> (B,C',H/stride,W/stride)."""
        return self._compute_output(maps, self._compute_middle(maps, extra))


class ForkBottleneck(_BottleneckBase):
    """A bottleneck that also returns its middle maps, which are added to the tokens."""

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B,C,H,W) -> (B,C',h,w) and the middle (B,C'/4,h,w)."""
        middle = self._compute_middle(maps)
        return self._compute_output(maps, middle), middle


class MapsToTokens(nn.Module):
    """From maps to tokens: gelu(LN(mean over each patch of 1x1(m))). CLS does not change."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv_project = nn.Conv2d(channels, width, 1)
        self.sample_pooling = nn.AvgPool2d(stride, stride)
        self.ln = nn.LayerNorm(width, EPS)
        self.act = nn.GELU()

    def forward(self, middle: Tensor, tokens: Tensor) -> Tensor:
        """Maps (B,C,H,W), tokens (B,1+N,D) -> (B,1+N,D): the tokens' own CLS, then the patches."""
        patches = self.sample_pooling(self.conv_project(middle)).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :1], self.act(self.ln(patches))], dim=1)


class TokensToMaps(nn.Module):
    """From tokens to maps: relu(BN(1x1(patch))), repeated over each patch, without CLS."""

    def __init__(self, width: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv_project = nn.Conv2d(width, channels, 1)
        self.bn = nn.BatchNorm2d(channels, EPS)
        self.act = nn.ReLU()

    def forward(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Tokens (B,1+N,D) -> (B,C,H,W); `like` (B,...,H,W) gives the size."""
        grid = (like.shape[2] // self.stride, like.shape[3] // self.stride)
        patches = self.act(self.bn(self.conv_project(_tokens_to_grid(tokens, grid))))
        return interpolate(patches, scale_factor=float(self.stride), mode="nearest")


def _tokens_to_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """The patch tokens on their grid: (B,1+h*w,D) -> (B,D,h,w)."""
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, *grid)


def _create_transformer_block(width: int, heads: int) -> nn.Module:
    """A pre-norm transformer block, as in ViT: (B,N,D) -> (B,N,D)."""
    norm: Any = partial(nn.LayerNorm, eps=EPS)
    block: nn.Module = Block(width, heads, qkv_bias=True, norm_layer=norm)
    return block


class ConvTransBlock(nn.Module):
    """A step of both branches: x', m = cnn(x); t' = block(t + squeeze(m, t)); fusion(x', t').

    The CLS token is in both terms of the sum, so it enters the block doubled.
    """

    def __init__(self, inputs: int, outputs: int, width: int, heads: int, token_stride: int,
                 *, starts_stage: bool, is_last: bool) -> None:  # fmt: skip
        super().__init__()
        self.cnn_block = ForkBottleneck(
            inputs, outputs, 2 if starts_stage else 1, project=starts_stage
        )
        self.fusion_block = Bottleneck(outputs, outputs, 2 if is_last else 1, project=is_last)
        self.squeeze_block = MapsToTokens(outputs // 4, width, token_stride)
        self.expand_block = TokensToMaps(width, outputs // 4, token_stride)
        self.trans_block = _create_transformer_block(width, heads)

    def forward(self, maps: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (B,C,H,W) and tokens (B,1+N,D) -> maps (B,C',H',W') and tokens (B,1+N,D)."""
        maps, middle = self.cnn_block(maps)
        tokens = self.trans_block(tokens + self.squeeze_block(middle, tokens))
        return self.fusion_block(maps, self.expand_block(tokens, middle)), tokens


class Conformer(nn.Module):
    """Images (B,3,H,W) -> logits (B,K); H and W are multiples of `patch`.

    TS-CAM's logits: mean over positions of F + conv_cls_head(mean of the last maps). F (B,K,h,w)
    is the output of `trans_cls_head`, a 3x3 convolution over the patch tokens. With `plain`, the
    original logits: trans_cls_head(CLS) + conv_cls_head(mean of the last maps), both linear.

    The network has three stages of depth / 3 steps. The maps have base * channel_ratio * (1, 2, 4)
    channels, at H/4, H/8 and H/16, and H/32 after the last step. The tokens have no position
    embedding. `grid` is the number of patches per side in training; `forward` ignores it.
    """

    num_prefix_tokens = 1

    def __init__(self, classes: int, *, width: int = 384, heads: int = 6, depth: int = 12,
                 channel_ratio: int = 4, base: int = 64, grid: int = 14, patch: int = 16,
                 plain: bool = False) -> None:  # fmt: skip
        super().__init__()
        self.grid = (grid, grid)
        self.linear_heads = plain
        self.depth, self.width, self.patch = depth, width, patch
        channels = base * channel_ratio
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.conv1 = nn.Conv2d(3, base, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.act1 = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.conv_1 = Bottleneck(base, channels, project=True)
        self.trans_patch_conv = nn.Conv2d(base, width, patch // 4, patch // 4)
        self.trans_1 = _create_transformer_block(width, heads)
        for step in range(2, depth + 1):
            stage, nth = divmod(step - 1, depth // 3)
            outputs, enters = channels << stage, nth == 0
            inputs = outputs // 2 if enters else outputs
            coupled = ConvTransBlock(inputs, outputs, width, heads, (patch // 4) >> stage,
                              starts_stage=enters, is_last=step == depth)  # fmt: skip
            self.add_module(f"conv_trans_{step}", coupled)
        self.trans_norm = nn.LayerNorm(width)
        self.trans_cls_head = (
            nn.Linear(width, classes) if plain else nn.Conv2d(width, classes, 3, padding=1)
        )
        self.conv_cls_head = nn.Linear(channels * 4, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) -> logits (B,K)."""
        stem = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        maps, patches = self.conv_1(stem), self.trans_patch_conv(stem)
        cls = self.cls_token.expand(len(images), -1, -1)
        tokens = self.trans_1(torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1))
        for step in range(2, self.depth + 1):
            maps, tokens = self.get_submodule(f"conv_trans_{step}")(maps, tokens)
        of_tokens = self._compute_token_logits(
            self.trans_norm(tokens), (patches.shape[2], patches.shape[3])
        )
        logits: Tensor = of_tokens + self.conv_cls_head(maps.mean(dim=(2, 3)))
        return logits

    def _compute_token_logits(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """The transformer's share of the logits: (B,1+h*w,D) -> (B,K)."""
        if self.linear_heads:
            share: Tensor = self.trans_cls_head(tokens[:, 0])
        else:
            share = self.trans_cls_head(_tokens_to_grid(tokens, grid)).mean(dim=(2, 3))
        return share


def is_tscam_conformer(shapes: Shapes) -> bool:
    """Whether these are the shapes of a TS-CAM Conformer: its token classifier is a convolution."""
    return _has_conformer_keys(shapes) and len(shapes["trans_cls_head.weight"]) == 4


def is_original_conformer(shapes: Shapes) -> bool:
    """Whether these are the shapes of the original Conformer: both classifiers are linear."""
    return _has_conformer_keys(shapes) and len(shapes["trans_cls_head.weight"]) == 2


def _has_conformer_keys(shapes: Shapes) -> bool:
    return {"trans_cls_head.weight", "conv_cls_head.weight", "trans_patch_conv.weight"} <= {*shapes}


def create_conformer(shapes: Shapes) -> Conformer:
    """The network for weights of these shapes, with random weights.

    Attention heads have width 64, as published. Shapes are compared before memory is allocated.
    Raises CheckpointError if they contradict each other. Other keys are ignored.
    """
    classes, width = _find_shape(shapes, "trans_cls_head.weight", 2, 4)[:2]
    base = _find_shape(shapes, "conv1.weight", 4)[0]
    channels = _find_shape(shapes, "conv_1.conv3.weight", 4)[0]
    patch = 4 * _find_shape(shapes, "trans_patch_conv.weight", 4)[3]
    steps = (f"conv_trans_{n}.cnn_block.conv1.weight" in shapes for n in count(2))
    depth = 1 + sum(takewhile(bool, steps))
    if width % 64 or channels % base or channels % 4 or depth % 3 or patch % 16:
        raise CheckpointError(
            f"not a Conformer: width {width}, {base} and {channels} channels, {depth} blocks, "
            f"patches of {patch}; these must be multiples: width of 64, blocks of 3, patches of 16"
        )
    build = partial(
        Conformer, classes, width=width, heads=width // 64, depth=depth, patch=patch, base=base,
        channel_ratio=channels // base, grid=max(CONFORMER_INPUT_SIDE // patch, 1),
        plain=is_original_conformer(shapes),
    )  # fmt: skip
    with torch.device("meta"):
        sketch = build()
    for key, value in sketch.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            _check_shape(key, shapes.get(key), tuple(value.shape))
    return build()


def _find_shape(shapes: Shapes, key: str, *dimensions: int) -> tuple[int, ...]:
    """A shape that defines the architecture. Raises CheckpointError without it."""
    shape = shapes.get(key, ())
    if len(shape) not in dimensions or min(shape) < 1:
        raise CheckpointError(f"not a Conformer: {key} is {shape or 'missing'}")
    return shape


def _check_shape(key: str, has: tuple[int, ...] | None, wants: tuple[int, ...]) -> None:
    if has != wants:
        raise CheckpointError(f"not a Conformer: {key} is {has or 'missing'}, not {wants}")
