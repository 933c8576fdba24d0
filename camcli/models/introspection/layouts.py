"""Convert between the output of a layer and a map (B,C,H,W)."""

from __future__ import annotations

import torch
from torch import Tensor

from camcli.core.types import Layer


def output_to_map(output: Tensor, layer: Layer) -> Tensor:
    """The output of a layer, NCHW, NHWC or tokens, as a map (B,C,H,W)."""
    if layer.layout == "NCHW":
        return output
    if layer.layout == "NHWC":
        return output.permute(0, 3, 1, 2)
    return select_patches(output, layer).transpose(1, 2).reshape(len(output), -1, *layer.grid)


def select_patches(tokens: Tensor, layer: Layer) -> Tensor:
    """The patch tokens in row order, without the prefix: (B,prefix+H*W,...) -> (B,H*W,...)."""
    patches = tokens[:, layer.prefix_token_count :]
    return patches[:, list(layer.token_order)] if layer.token_order else patches


def map_to_output(maps: Tensor, reference_output: Tensor, layer: Layer) -> Tensor:
    """Maps (n,C,H,W) as outputs of a layer: the inverse of `output_to_map`.

    Prefix tokens are taken from `reference_output` (1,...).
    """
    if layer.layout == "NCHW":
        return maps
    if layer.layout == "NHWC":
        return maps.permute(0, 2, 3, 1)
    prefix = reference_output[:, : layer.prefix_token_count].expand(len(maps), -1, -1)
    patches = maps.flatten(2).transpose(1, 2)
    if layer.token_order:
        patches = patches[:, torch.tensor(layer.token_order).argsort()]
    return torch.cat([prefix, patches], dim=1)
