"""EfficientNet-Lite0, the built-in CNN, in plain torch: `import timm` would take seconds.

Modules, their names, the order of the weights and the operations are those of timm's
`tf_efficientnet_lite0`, so that weights, layers and results are the same to the last bit.
Source: https://arxiv.org/abs/1905.11946; without squeeze-and-excitation, and with ReLU6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

STEM_CHANNELS, FEATURE_CHANNELS = 32, 1280
EXPANSION = 6  # of channels inside an inverted residual
NORM_EPSILON = 1e-3  # TensorFlow's


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the trunk: its blocks, their kernel, the stride of the first, the channels."""

    block_count: int
    kernel_size: int
    stride: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 16),
    Stage(2, 3, 2, 24),
    Stage(2, 5, 2, 40),
    Stage(3, 3, 2, 80),
    Stage(3, 5, 1, 112),
    Stage(4, 5, 2, 192),
    Stage(1, 3, 1, 320),
)


class Conv2dSame(nn.Conv2d):
    """A convolution with TensorFlow's padding: output sides are the input's by stride, rounded up.

    Where an odd number of pixels is padded, right and bottom get one more.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,D,ceil(H/stride),ceil(W/stride))."""
        sides = zip(maps.shape[-2:], self.weight.shape[-2:], self.stride, strict=True)
        down, across = (max((-(-n // s) - 1) * s + kernel - n, 0) for n, kernel, s in sides)
        edges = (across // 2, across - across // 2, down // 2, down - down // 2)
        return super().forward(functional.pad(maps, edges, value=0))


class BatchNormAct2d(nn.BatchNorm2d):
    """A batch norm and the activation after it, as one layer."""

    def __init__(self, channels: int, *, has_activation: bool = True) -> None:
        super().__init__(channels, NORM_EPSILON)
        self.drop = nn.Identity()
        self.act = nn.ReLU6(inplace=True) if has_activation else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C,H,W)."""
        activated: Tensor = self.act(self.drop(super().forward(maps)))
        return activated


def _create_depthwise(channels: int, kernel_size: int, stride: int) -> nn.Conv2d:
    """A convolution in each channel; with stride 1 the padding is the same on all sides."""
    options: dict[str, Any] = {"groups": channels, "bias": False}
    if stride > 1:
        return Conv2dSame(channels, channels, kernel_size, stride, **options)
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, **options)


class DepthwiseSeparableConv(nn.Module):
    """The block of the first stage: a convolution in each channel, then one across channels."""

    def __init__(self, source: int, stage: Stage) -> None:
        super().__init__()
        self.conv_dw = _create_depthwise(source, stage.kernel_size, stage.stride)
        self.bn1 = BatchNormAct2d(source)
        self.aa, self.se = nn.Identity(), nn.Identity()
        self.conv_pw = nn.Conv2d(source, stage.channels, 1, bias=False)
        self.bn2 = BatchNormAct2d(stage.channels, has_activation=False)
        self.drop_path = nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,D,H,W)."""
        inner = self.se(self.aa(self.bn1(self.conv_dw(maps))))
        output: Tensor = self.bn2(self.conv_pw(inner))
        return output


class InvertedResidual(nn.Module):
    """More channels, a convolution in each, fewer channels; plus the input if its shape fits."""

    def __init__(self, source: int, stride: int, stage: Stage) -> None:
        super().__init__()
        inner = source * EXPANSION
        self.has_skip = stride == 1 and source == stage.channels
        self.conv_pw = nn.Conv2d(source, inner, 1, bias=False)
        self.bn1 = BatchNormAct2d(inner)
        self.conv_dw = _create_depthwise(inner, stage.kernel_size, stride)
        self.bn2 = BatchNormAct2d(inner)
        self.aa, self.se = nn.Identity(), nn.Identity()
        self.conv_pwl = nn.Conv2d(inner, stage.channels, 1, bias=False)
        self.bn3 = BatchNormAct2d(stage.channels, has_activation=False)
        self.drop_path = nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,D,ceil(H/stride),ceil(W/stride))."""
        inner = self.bn2(self.conv_dw(self.bn1(self.conv_pw(maps))))
        output: Tensor = self.bn3(self.conv_pwl(self.se(self.aa(inner))))
        return self.drop_path(output) + maps if self.has_skip else output


class GlobalPool(nn.Module):
    """The mean over positions as vectors, (B,C,H,W) -> (B,C); or nothing, to get the maps."""

    def __init__(self, pool_type: str = "avg") -> None:
        super().__init__()
        self.pool: nn.Module = nn.AdaptiveAvgPool2d(1) if pool_type else nn.Identity()
        self.flatten: nn.Module = nn.Flatten(1) if pool_type else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B,C,H,W) -> (B,C)."""
        vectors: Tensor = self.flatten(self.pool(maps))
        return vectors


class EfficientNetLite0(nn.Module):
    """Images (B,3,H,W) -> logits (B,K). Without classes it returns vectors, or maps (B,1280,h,w).

    `feature_info` lists the last module before each fall of the resolution, as timm does.
    """

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, FEATURE_CHANNELS
        self.conv_stem = Conv2dSame(in_chans, STEM_CHANNELS, 3, 2, bias=False)
        self.bn1 = BatchNormAct2d(STEM_CHANNELS)
        widths = [STEM_CHANNELS, *(stage.channels for stage in STAGES)]
        self.blocks = nn.Sequential(*map(_create_stage, widths, STAGES))
        self.feature_info = _list_stage_ends()
        self.conv_head = nn.Conv2d(widths[-1], FEATURE_CHANNELS, 1, bias=False)
        self.bn2 = BatchNormAct2d(FEATURE_CHANNELS)
        self.global_pool = GlobalPool()
        self.classifier = _create_classifier(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B,3,H,W) -> logits (B,K)."""
        maps = self.blocks(self.bn1(self.conv_stem(images)))
        features = self.bn2(self.conv_head(maps))
        logits: Tensor = self.classifier(self.global_pool(features))
        return logits

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Replace pooling and classifier; "" and 0 remove them."""
        self.num_classes = num_classes
        self.global_pool = GlobalPool(global_pool)
        self.classifier = _create_classifier(num_classes)


def _create_stage(source: int, stage: Stage) -> nn.Sequential:
    if stage is STAGES[0]:
        return nn.Sequential(DepthwiseSeparableConv(source, stage))
    others = (InvertedResidual(stage.channels, 1, stage) for _ in range(1, stage.block_count))
    return nn.Sequential(InvertedResidual(source, stage.stride, stage), *others)


def _list_stage_ends() -> list[dict[str, Any]]:
    """The stages whose successor has a stride, and the last one."""
    strides = [*(stage.stride for stage in STAGES[1:]), 2]
    ends = (number for number, stride in enumerate(strides) if stride > 1)
    return [{"module": f"blocks.{n}", "num_chs": STAGES[n].channels} for n in ends]


def _create_classifier(class_count: int) -> nn.Module:
    return nn.Linear(FEATURE_CHANNELS, class_count) if class_count else nn.Identity()
