"""MCTformer: a transformer with a token for each class, in its versions 1, 2 and plus.

Only for inference with trained weights: there is no stochastic depth. Attribute names are the keys
of the official checkpoints. These also hold weights that the authors' network never reads: the
last norm, the classifier of version 1, and the position embeddings of DeiT in plus.
Sources: https://arxiv.org/abs/2203.02891 (1 and 2), https://arxiv.org/abs/2308.03005 (plus)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate

from camcli.core.errors import CheckpointError, ModelError
from camcli.core.types import Transform
from camcli.models.introspection.class_token_attention import ClassTokens
from camcli.models.zoo.checkpoints import CheckpointFile, load_into_network
from camcli.models.zoo.library import LoadedNetwork, Size
from camcli.models.zoo.memory import check_memory
from camcli.models.zoo.model_card import MAX_INPUT_SIDE
from camcli.models.zoo.signatures import Shapes

Version = Literal["1", "2", "plus"]

# The authors' blocks and powers of the fused map, and the keys that their network never reads.
MAP_BLOCKS: Mapping[Version, int] = {"1": 3, "2": 3, "plus": 12}
MAP_POWERS: Mapping[Version, float] = {"1": 1.0, "2": 1.0, "plus": 0.5}
UNUSED_KEYS: Mapping[Version, tuple[str, ...]] = {
    "1": ("norm.weight", "norm.bias", "head.weight", "head.bias"),
    "2": ("norm.weight", "norm.bias"),
    "plus": ("norm.weight", "norm.bias", "pos_embed"),
}
RANK_DECAY = 0.996  # of plus: the weight of a patch's score falls so from rank to rank
MAX_CLASS_TOKENS = 1000  # attention has the square of the tokens; a hostile file may ask for more

# The classes of PASCAL VOC in the authors' order; they publish no such list for COCO.
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


class PatchEmbedding(nn.Module):
    """Cuts images into patches: (B,C,H,W) -> maps (B,D,H/patch,W/patch)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B,D,h,w) of images (B,C,H,W)."""
        maps: Tensor = self.proj(images)
        return maps


class MCTformer(nn.Module):
    """Images (B,C,H,W) -> logits (B,K), or a dict with the logits and others (B,K) of the patches.

    The logit of a class is the mean over channels of its token after the last block, which no norm
    follows. From version 2 on `head`, a 3x3 convolution over the patch tokens, gives maps (B,K,h,w)
    and their mean over positions other logits, `patch_logits`. In plus, the mean gives larger
    scores more weight, and `logits` are the mean of `class_logits` and `patch_logits`.

    `grid` is the number of patches per side in training; for other sizes the positions are
    interpolated, as the authors do it.
    """

    def __init__(self, classes: int, version: Version, *, width: int = 384, heads: int = 6,
                 depth: int = 12, patch: int = 16, grid: int = 14,
                 channels: int = 3) -> None:  # fmt: skip
        super().__init__()
        self.version, self.grid, self.width, self.patch = version, grid, width, patch
        self.num_prefix_tokens = classes
        self.cls_token = nn.Parameter(torch.randn(1, classes, width) * 0.02)
        if version == "plus":
            self.pos_embed_cls = nn.Parameter(torch.randn(1, classes, width) * 0.02)
            self.pos_embed_pat = nn.Parameter(torch.randn(1, grid * grid, width) * 0.02)
        else:
            self.pos_embed = nn.Parameter(torch.randn(1, classes + grid * grid, width) * 0.02)
        self.patch_embed = PatchEmbedding(channels, width, patch)
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(width, heads, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        if version != "1":
            self.head = nn.Conv2d(width, classes, 3, padding=1)
        self.class_tokens = ClassTokens(
            count=classes,
            block_count=min(MAP_BLOCKS[version], depth),
            patch_layer="" if version == "1" else "head",
            power=MAP_POWERS[version],
        )

    def forward(self, images: Tensor) -> Tensor | dict[str, Tensor]:
        """Images (B,C,H,W) -> logits (B,K), alone or by name."""
        patches = self.patch_embed(images)
        grid = (patches.shape[2], patches.shape[3])
        own, of_patches = self._find_positions(grid)
        classes = (self.cls_token + own).expand(len(images), -1, -1)
        tokens = torch.cat([classes, patches.flatten(2).transpose(1, 2) + of_patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        count = self.class_tokens.count
        class_logits = tokens[:, :count].mean(dim=2)
        if self.version == "1":
            return class_logits
        maps = self.head(tokens[:, count:].transpose(1, 2).reshape(len(images), -1, *grid))
        if self.version == "2":
            return {"logits": class_logits, "patch_logits": maps.mean(dim=(2, 3))}
        patch_logits = pool_by_rank(maps)
        logits = (class_logits + patch_logits) / 2
        return {"logits": logits, "class_logits": class_logits, "patch_logits": patch_logits}

    def _find_positions(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The positions of the class tokens (1,K,D), and those of the patches (1,h*w,D)."""
        own: Tensor
        patches: Tensor
        if self.version == "plus":
            own, patches = self.pos_embed_cls, self.pos_embed_pat
        else:
            count = self.class_tokens.count
            own, patches = self.pos_embed[:, :count], self.pos_embed[:, count:]
        if grid == (self.grid, self.grid):
            return own, patches
        square = patches.transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        if self.version == "plus":
            other = interpolate(square, size=grid, mode="bicubic")
        else:  # the authors add 0.1 against rounding, and it shifts the samples
            scale = ((grid[0] + 0.1) / self.grid, (grid[1] + 0.1) / self.grid)
            other = interpolate(square, scale_factor=scale, mode="bicubic")
        return own, other.flatten(2).transpose(1, 2)


def pool_by_rank(maps: Tensor) -> Tensor:
    """The mean of each map's values with weights 0.996^rank, the largest first: -> (B,K)."""
    ranked = maps.flatten(2).sort(dim=2, descending=True).values
    weights = RANK_DECAY ** torch.arange(ranked.shape[2], device=maps.device)
    return (ranked * weights).sum(dim=2) / weights.sum()


def find_mctformer_version(shapes: Shapes) -> Version | None:
    """The version whose keys these shapes have: several class tokens, and as many classes."""
    classes, width = (*shapes.get("cls_token", ()), 0, 0, 0)[1:3]
    head = shapes.get("head.weight", ())
    if "pos_embed_cls" in shapes and "pos_embed_pat" in shapes and len(head) == 4:
        return "plus"
    if classes < 2 or head[:2] != (classes, width) or "pos_embed" not in shapes:
        return None
    versions: Mapping[int, Version] = {2: "1", 4: "2"}
    return versions.get(len(head))


def load_mctformer(path: Path, checkpoint: CheckpointFile, size: Size | None) -> LoadedNetwork:
    """An MCTformer from its official checkpoint. Raises CheckpointError or ModelError.

    The shapes give the version, the classes and the size of training. The transform is squash,
    bicubic, ImageNet's mean and std. The authors make maps of whole images at their own size.
    """
    network = create_mctformer(path, checkpoint.shapes)
    unused = UNUSED_KEYS[network.version]
    state = {key: value for key, value in checkpoint.load_state().items() if key not in unused}
    load_into_network(network, state, path, f"MCTformer {network.version}")
    if size is not None and any(length % network.patch for length in size):
        raise ModelError(f"--size: this MCTformer needs multiples of {network.patch}")
    side = network.grid * network.patch
    is_voc = network.class_tokens.count == len(VOC_CLASSES)
    note = f"{path.name} has {len(VOC_CLASSES)} classes: camcli takes them for PASCAL VOC's"
    return LoadedNetwork(
        f"mctformer_{network.version}_w{network.width}_patch{network.patch}",
        network,
        Transform(size or (side, side), interpolation="bicubic"),
        VOC_CLASSES if is_voc else None,
        note=f"{note}; --labels gives others" if is_voc else "",
        output_kind="sigmoid",
    )


def create_mctformer(path: Path, shapes: Shapes) -> MCTformer:
    """The network for weights of these shapes, with random weights.

    Attention heads have width 64, as in DeiT. Shapes are compared before memory is allocated.
    Raises CheckpointError if they contradict each other, ModelError if the weights need more memory
    than there is.
    """
    version = find_mctformer_version(shapes)
    if version is None:
        raise CheckpointError(f"{path} is not an MCTformer")
    classes, width = _find_shape(path, shapes, "cls_token", 3)[1:]
    _, channels, patch, _ = _find_shape(path, shapes, "patch_embed.proj.weight", 4)
    key, others = ("pos_embed_pat", 0) if version == "plus" else ("pos_embed", classes)
    patches = _find_shape(path, shapes, key, 3)[1] - others
    grid = math.isqrt(max(patches, 0))
    steps = (f"blocks.{n}.norm1.weight" in shapes for n in count())
    depth = sum(takewhile(bool, steps))
    if not 2 <= classes <= MAX_CLASS_TOKENS:
        raise CheckpointError(
            f"{path} has {classes} class token{'s' * (classes != 1)}; camcli takes MCTformers of "
            f"2 to {MAX_CLASS_TOKENS}"
        )
    if grid < 2 or grid * grid != patches or grid * patch > MAX_INPUT_SIDE:
        raise CheckpointError(f"{path}: {patches} positions of patches are not a square grid")
    if width % 64 or not depth:
        raise CheckpointError(
            f"{path} is not an MCTformer: width {width} and {depth} blocks; the width must be a "
            f"multiple of 64"
        )
    build = partial(
        MCTformer, classes, version, width=width, heads=width // 64, depth=depth, patch=patch,
        grid=grid, channels=channels,
    )  # fmt: skip
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in build().state_dict().items()}
    for key, shape in wanted.items():
        if shapes.get(key) != shape:
            has = shapes.get(key) or "missing"
            raise CheckpointError(f"{path} is not an MCTformer: {key} is {has}, not {shape}")
    check_memory(path.name, build)
    return build()


def _find_shape(path: Path, shapes: Shapes, key: str, dimensions: int) -> tuple[int, ...]:
    """A shape that defines the architecture. Raises CheckpointError without it."""
    shape = shapes.get(key, ())
    if len(shape) != dimensions or min(shape) < 1:
        raise CheckpointError(f"{path} is not an MCTformer: {key} is {shape or 'missing'}")
    return shape
