"""Find the layers that output maps, by one forward pass of a probe image."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.models.introspection.attention_names import find_enclosing_attention
from camcli.models.introspection.hooks import list_parent_names, observe_all_modules
from camcli.models.introspection.probe import create_probe_image
from camcli.models.introspection.quirks import ArchitectureQuirks
from camcli.models.introspection.shapes import ShapeParser, create_shape_parser

PASS_THROUGH_TYPES = (nn.Identity, nn.Dropout)  # their output is their input


def find_layers(
    network: nn.Module, quirks: ArchitectureQuirks, size: tuple[int, int]
) -> tuple[tuple[Layer, ...], Any]:
    """Find every layer that outputs a map, in the order in which the forward pass completes them.

    Returns the layers and the output of the network. `number_layers` adds stages and blocks.
    """
    modules = dict(network.named_modules())
    candidates = {n for n, module in modules.items() if _is_layer_candidate(n, module, modules)}
    detector = _LayerDetector(network, quirks, create_shape_parser(network, size), candidates)
    recorder = _ProbeRecorder(detector, find_enclosing_attention(modules))
    with torch.no_grad(), observe_all_modules(network, recorder.record_output):
        output = network(create_probe_image(network, size))
    return recorder.list_layers(), output


def _is_layer_candidate(name: str, module: nn.Module, modules: Mapping[str, nn.Module]) -> bool:
    """Whether users can name the layer (no dots or brackets inside) and it computes something."""
    is_addressable = "[" not in name and all(outer in modules for outer in list_parent_names(name))
    return is_addressable and not isinstance(module, PASS_THROUGH_TYPES)


@dataclass(frozen=True, slots=True)
class _LayerDetector:
    network: nn.Module
    quirks: ArchitectureQuirks
    parser: ShapeParser
    candidate_names: Collection[str]

    def detect_layer(self, name: str, output: Any) -> Layer | None:
        if name not in self.candidate_names:
            return None
        layer = self.parser.parse_output(name, output)
        if layer is None or layer.layout != "NLC":
            return layer
        order = self.quirks.find_token_order(self.network, name, math.prod(layer.grid))
        return replace(layer, token_order=order)


@dataclass(slots=True)
class _ProbeRecorder:
    """Collects the layers while the probe passes, in the order in which they are completed.

    `attention_by_module` maps a module to the attention that it is or lies in.
    """

    detector: _LayerDetector
    attention_by_module: Mapping[str, str]
    layers: dict[str, Layer] = field(default_factory=dict)
    layer_by_attention: dict[str, str] = field(default_factory=dict)  # the layer that feeds it
    previous_output: Any = None
    previous_version: int = 0
    tensor_count: int = 0
    finest_cell_count: int = 0  # cells of the finest map so far

    def record_output(self, name: str, output: Any) -> None:
        self._count_tensor(output)
        attention = self.attention_by_module.get(name)
        if attention and attention not in self.layer_by_attention and self.layers:
            self.layer_by_attention[attention] = next(reversed(self.layers))
        is_inside_attention = attention not in (None, name)
        layer = None if is_inside_attention else self.detector.detect_layer(name, output)
        if layer and not self._is_finer_grid(layer):
            self.finest_cell_count = max(self.finest_cell_count, math.prod(layer.grid))
            self.layers.pop(layer.name, None)  # a module may be called again: the last call counts
            self.layers[layer.name] = replace(layer, output_id=self.tensor_count)

    def _count_tensor(self, output: Any) -> None:
        """Count outputs that are new tensors: an in-place ReLU changes the tensor that it gets."""
        version = _count_inplace_changes(output)
        if output is not self.previous_output or version != self.previous_version:
            self.tensor_count += 1
            self.previous_output, self.previous_version = output, version

    def _is_finer_grid(self, layer: Layer) -> bool:
        """Whether tokens are more than the cells of any map before: then they are not patches.

        The number of channels may be a square, and latent tokens may look like a grid.
        """
        return layer.layout == "NLC" and 0 < self.finest_cell_count < math.prod(layer.grid)

    def list_layers(self) -> tuple[Layer, ...]:
        """The layers, each with the attention modules that it feeds."""
        consumers: dict[str, tuple[str, ...]] = {}
        for attention, name in self.layer_by_attention.items():
            consumers[name] = (*consumers.get(name, ()), attention)
        return tuple(
            replace(layer, attention_consumers=consumers.get(name, ()))
            for name, layer in self.layers.items()
        )


def _count_inplace_changes(output: Any) -> int:
    """The version of a tensor; 0 for a value without a version."""
    has_version = isinstance(output, Tensor) and not output.is_inference()
    return int(output._version) if has_version else 0
