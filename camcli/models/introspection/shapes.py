"""Tell from the shape of a tensor whether it is a map of the input image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from camcli.core.layer_names import LayerName
from camcli.core.types import Layer, Layout
from camcli.models.introspection.probe import find_attribute

# Tokens before the patches, to be tried if the network does not declare their number.
PREFIX_TOKEN_COUNTS = (0, 1, 2)
IMAGE_LAYOUTS: tuple[Layout, ...] = ("NCHW", "NHWC")
STRIDES = (2, 4, 8, 16, 32)
MAX_LOST_CELLS = 5  # convolutions without padding remove them from a side


@dataclass(frozen=True, slots=True)
class ShapeParser:
    """Reads the layout, channels and grid of maps from the shapes of outputs for one image.

    `input_size` is (H,W). `image_layouts` and `prefix_token_counts` are tried in their order.
    """

    input_size: tuple[int, int]
    image_layouts: tuple[Layout, ...] = IMAGE_LAYOUTS
    prefix_token_counts: tuple[int, ...] = PREFIX_TOKEN_COUNTS

    def parse_output(self, name: str, output: Any) -> Layer | None:
        """The layer in the output of a module, or None.

        The output may be a map, or a tuple or list with exactly one map in it.
        """
        if isinstance(output, Tensor):
            return self._parse_tensor(LayerName(name), output)
        parts = output if isinstance(output, tuple | list) else ()
        found = [
            layer
            for index, part in enumerate(parts)
            if isinstance(part, Tensor)
            and (layer := self._parse_tensor(LayerName(name, index), part))
        ]
        return found[0] if len(found) == 1 else None

    def _parse_tensor(self, name: LayerName, tensor: Tensor) -> Layer | None:
        if not tensor.is_floating_point() or tensor.shape[:1] != (1,):
            return None
        if tensor.ndim == 4:
            return self._parse_image_shape(str(name), tuple(tensor.shape))
        if tensor.ndim == 3:
            return self._parse_token_shape(str(name), tensor.shape[1], tensor.shape[2])
        return None

    def _parse_image_shape(self, name: str, shape: tuple[int, ...]) -> Layer | None:
        for fits in (_has_input_aspect, _is_unpadded_grid):
            for layout in self.image_layouts:
                side = dict(zip(layout, shape, strict=True))
                if fits(side["H"], side["W"], self.input_size):
                    return Layer(name, layout, side["C"], (side["H"], side["W"]))
        return None

    def _parse_token_shape(self, name: str, token_count: int, channels: int) -> Layer | None:
        height, width = self.input_size
        for prefix in self.prefix_token_counts:
            patches = token_count - prefix
            rows = round(math.sqrt(max(patches, 0) * height / width)) or 1
            cols = patches // rows
            if rows * cols == patches and _has_input_aspect(rows, cols, self.input_size):
                return Layer(name, "NLC", channels, (rows, cols), prefix)
        return None


def create_shape_parser(network: nn.Module, input_size: tuple[int, int]) -> ShapeParser:
    """A parser that first tries the layout and the prefix tokens that timm's networks declare."""
    declared_layout = str(find_attribute(network, "output_fmt"))
    declared_count = find_attribute(network, "num_prefix_tokens")
    return ShapeParser(
        input_size,
        tuple(sorted(IMAGE_LAYOUTS, key=lambda layout: layout != declared_layout)),
        PREFIX_TOKEN_COUNTS
        if declared_count is None
        else tuple(dict.fromkeys((int(declared_count), 0))),
    )


def _has_input_aspect(rows: int, cols: int, size: tuple[int, int]) -> bool:
    """Whether rows x cols is the input's grid at one stride, up to padding of less than a cell."""
    stride = size[0] / rows
    return rows * cols > 1 and rows <= size[0] and abs(size[1] / stride - cols) < 1


def _is_unpadded_grid(rows: int, cols: int, size: tuple[int, int]) -> bool:
    """Whether both sides lack the same few cells: Inception's convolutions have no padding."""
    lost = ((size[0] / stride - rows, size[1] / stride - cols) for stride in STRIDES)
    few = [
        (down, across)
        for down, across in lost
        if 0 <= down < MAX_LOST_CELLS and 0 <= across < MAX_LOST_CELLS
    ]
    return rows * cols > 1 and any(abs(down - across) < 1 for down, across in few)
