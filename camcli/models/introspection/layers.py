"""Which modules of a network yield maps, measured by one forward pass. Knows not how users say it.

What feeds attention, and which names are of the same tensor, is seen on the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import LayerError
from camcli.core.types import Layer, Layout
from camcli.models.introspection.hooks import (
    compute_gradients,
    list_parent_names,
    observe_all_modules,
    record_outputs,
)
from camcli.models.introspection.quirks import ArchitectureQuirks

HEAD_COUNT_ATTRIBUTES = (
    "num_heads",
    "num_attention_heads",
    "heads",
    "n_heads",
    "n_head",
    "nhead",
    "num_head",
)
AFFINE_TYPES = (nn.Linear, nn.Conv2d)
PREFIX_TOKEN_COUNTS = (
    0,
    1,
    2,
)  # tokens before the patches, where the network does not say how many
PASS_THROUGH_TYPES = (nn.Identity, nn.Dropout)  # they hand on what they were given
DEFAULT_SEARCH_DEPTH = 24  # layers from the end, among which the default nearly always is


def create_probe_image(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """A fixed noise image (1, 3, H, W) on the network's device: any real input would do."""
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    where = next(network.parameters(), noise)
    return noise.to(where.device)


@dataclass(slots=True)
class _ProbeRecorder:
    """What is seen while a probe passes: maps in the order in which they are finished."""

    detect_layer: Callable[[str, Any], Layer | None]
    attention_by_module: Mapping[str, str]  # the attention module that a module is, or lies in
    layers: dict[str, Layer] = field(default_factory=dict)
    layer_by_attention: dict[str, str] = field(
        default_factory=dict
    )  # by attention, the map before it
    previous_output: Any = None
    previous_version: int = 0
    tensor_count: int = 0
    finest_cell_count: int = 0  # places of any map so far

    def record_output(self, name: str, output: Any) -> None:
        version = _count_inplace_changes(output)  # an in-place ReLU hands on what it was given
        if output is not self.previous_output or version != self.previous_version:
            self.tensor_count += 1  # a new tensor, whoever made it: a module may be called again
            self.previous_output, self.previous_version = output, version
        attention = self.attention_by_module.get(name)
        if attention and attention not in self.layer_by_attention and self.layers:
            self.layer_by_attention[attention] = next(reversed(self.layers))
        layer = self.detect_layer(name, output) if attention in (None, name) else None
        if layer and not self._is_finer_grid(layer):
            self.finest_cell_count = max(self.finest_cell_count, math.prod(layer.grid))
            self.layers.pop(layer.name, None)
            self.layers[layer.name] = replace(layer, output_id=self.tensor_count)

    def _is_finer_grid(self, layer: Layer) -> bool:
        """Whether tokens are of a grid finer than any before, as classifiers make none.

        Channels may be as many as a square, and latents that are no places too.
        """
        return layer.layout == "NLC" and 0 < self.finest_cell_count < math.prod(layer.grid)


def _count_inplace_changes(output: Any) -> int:
    """How often a tensor was changed in place; of what is no tensor, or keeps no count, 0."""
    counts = isinstance(output, Tensor) and not output.is_inference()
    return int(output._version) if counts else 0


def find_layers(
    network: nn.Module, quirks: ArchitectureQuirks, size: tuple[int, int]
) -> tuple[tuple[Layer, ...], Any]:
    """Every layer that is a map, in the order in which a pass completes them, and the answer.

    `numbering` says which of them are stages or blocks.
    """
    known = dict(network.named_modules())
    passing = {
        n
        for n, m in known.items()
        if isinstance(m, PASS_THROUGH_TYPES) or not _can_be_named(n, known)
    }
    watch = _ProbeRecorder(
        _create_layer_detector(network, quirks, size, passing), _find_enclosing_attention(known)
    )
    with torch.no_grad(), observe_all_modules(network, watch.record_output):
        answer = network(create_probe_image(network, size))
    fed: dict[str, tuple[str, ...]] = {}
    for attention, name in watch.layer_by_attention.items():
        fed[name] = (*fed.get(name, ()), attention)
    layers = [
        replace(layer, attention_consumers=fed.get(name, ()))
        for name, layer in watch.layers.items()
    ]
    return tuple(layers), answer


def find_attribute(network: nn.Module, attribute: str) -> Any:
    """What a network, or one inside it, says of itself; None where none says anything."""
    values = (getattr(module, attribute, None) for module in network.modules())
    return next((value for value in values if value is not None), None)


def _can_be_named(name: str, known: Mapping[str, nn.Module]) -> bool:
    """Whether each part of a name is a module's own, as it is not where names have dots in them."""
    return "[" not in name and all(outer in known for outer in list_parent_names(name))


def _create_layer_detector(
    network: nn.Module,
    quirks: ArchitectureQuirks,
    size: tuple[int, int],
    pass_through_names: set[str],
) -> Callable[[str, Any], Layer | None]:
    declared = find_attribute(network, "num_prefix_tokens")
    prefixes = PREFIX_TOKEN_COUNTS if declared is None else tuple(dict.fromkeys((int(declared), 0)))
    fmt = str(find_attribute(network, "output_fmt") or "NCHW")

    def read(name: str, output: Any) -> Layer | None:
        if name in pass_through_names:
            return None
        if isinstance(output, Tensor) and output.is_floating_point():
            found = _shape_to_layer(name, tuple(output.shape), size, prefixes, fmt)
        else:
            found = _find_tuple_layer(name, output, size, prefixes, fmt)
        if found is None or found.layout != "NLC":
            return found
        return replace(
            found, token_order=quirks.find_token_order(network, name, math.prod(found.grid))
        )

    return read


def _find_tuple_layer(name: str, output: Any, *given: Any) -> Layer | None:
    """The one map among the tensors of a tuple; of several none can be meant."""
    parts = output if isinstance(output, tuple | list) else ()
    tensors = ((n, p) for n, p in enumerate(parts) if isinstance(p, Tensor))
    shapes = ((n, tuple(p.shape)) for n, p in tensors if p.is_floating_point())
    found = [layer for n, s in shapes if (layer := _shape_to_layer(f"{name}[{n}]", s, *given))]
    return found[0] if len(found) == 1 else None


def _find_enclosing_attention(known: Mapping[str, nn.Module]) -> dict[str, str]:
    """By module, the attention in which it lies: split heads and matrices can look like maps.

    Blocks around attention, and relative positions inside it, may know its number of heads too;
    attention itself is what projects, or what is called so.
    """
    headed = [
        n
        for n, m in known.items()
        if n and any(_has_positive_int(m, heads) for heads in HEAD_COUNT_ATTRIBUTES)
    ]
    called = [n for n, m in known.items() if n and "att" in type(m).__name__.casefold()]
    either = dict.fromkeys((*headed, *called))
    mixing = [n for n in either if any(isinstance(c, AFFINE_TYPES) for c in known[n].children())]
    # What holds something that projects is a block or a network around it.
    projecting = [n for n in mixing if not any(o.startswith(f"{n}.") for o in mixing)]
    called = [n for n in called if n in headed]
    found = [*projecting, *(n for n in called if not any(_is_nested(n, p) for p in projecting))]
    outermost = [n for n in found if not any(n.startswith(f"{o}.") for o in found)]
    return {n: a for a in outermost for n in known if f"{n}.".startswith(f"{a}.")}


def _is_nested(first_name: str, second_name: str) -> bool:
    inner, outer = sorted((first_name, second_name), key=len, reverse=True)
    return f"{inner}.".startswith(f"{outer}.")


def _has_positive_int(module: nn.Module, attribute: str) -> bool:
    value = getattr(module, attribute, None)
    return isinstance(value, int) and value > 0


def _shape_to_layer(
    name: str, shape: tuple[int, ...], size: tuple[int, int], prefixes: Iterable[int], fmt: str
) -> Layer | None:
    if len(shape) == 4 and shape[0] == 1:
        for fits in (_has_input_aspect, _is_unpadded_grid):
            for layout in sorted(_AXES_BY_LAYOUT, key=lambda known: known != fmt):
                channels, *grid = (shape[i] for i in _AXES_BY_LAYOUT[layout])
                if fits(grid[0], grid[1], size):
                    return Layer(name, layout, channels, (grid[0], grid[1]))
    if len(shape) == 3 and shape[0] == 1:
        for extra in prefixes:
            rows = round(math.sqrt(max(shape[1] - extra, 0) * size[0] / size[1])) or 1
            cols = (shape[1] - extra) // rows
            if rows * cols == shape[1] - extra and _has_input_aspect(rows, cols, size):
                return Layer(name, "NLC", shape[2], (rows, cols), extra)
    return None


_AXES_BY_LAYOUT: Mapping[Layout, tuple[int, int, int]] = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}


def _has_input_aspect(rows: int, cols: int, size: tuple[int, int]) -> bool:
    """Whether rows x cols is the input's grid at one stride, but for padding under a cell."""
    stride = size[0] / rows
    return rows * cols > 1 and rows <= size[0] and abs(size[1] / stride - cols) < 1


def _is_unpadded_grid(rows: int, cols: int, size: tuple[int, int]) -> bool:
    """Whether both sides lack the same few cells at one stride: convolutions that pad nothing."""
    lost = ((size[0] / stride - rows, size[1] / stride - cols) for stride in (2, 4, 8, 16, 32))
    few = [(down, across) for down, across in lost if 0 <= down < 5 and 0 <= across < 5]
    return rows * cols > 1 and any(abs(down - across) < 1 for down, across in few)


def output_to_map(tensor: Tensor, layer: Layer) -> Tensor:
    """A layer's output as a map: NCHW, NHWC or tokens -> (B, C, H, W)."""
    if layer.layout == "NCHW":
        return tensor
    if layer.layout == "NHWC":
        return tensor.permute(0, 3, 1, 2)
    return select_patches(tensor, layer).transpose(1, 2).reshape(len(tensor), -1, *layer.grid)


def select_patches(tokens: Tensor, layer: Layer) -> Tensor:
    """The tokens of the patches alone, row by row: (B,prefix+H*W,...) -> (B,H*W,...)."""
    own = tokens[:, layer.prefix_token_count :]
    return own[:, list(layer.token_order)] if layer.token_order else own


def map_to_output(maps: Tensor, reference_output: Tensor, layer: Layer) -> Tensor:
    """Maps (n,C,H,W) as a layer's output, prefix tokens as in `like` (1,...): undoes `spatial`."""
    if layer.layout == "NCHW":
        return maps
    if layer.layout == "NHWC":
        return maps.permute(0, 2, 3, 1)
    prefix = reference_output[:, : layer.prefix_token_count].expand(len(maps), -1, -1)
    rows = maps.flatten(2).transpose(1, 2)
    own = rows[:, torch.tensor(layer.token_order).argsort()] if layer.token_order else rows
    return torch.cat([prefix, own], dim=1)


def find_default_layer(network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]) -> Layer:
    """The last layer whose map the predicted class depends on: its gradient there is not zero.

    CLS-pooled transformers have exactly zero patch gradient after their last attention, so it is
    measured. A map a class (TS-CAM's head) is an answer, not a feature.
    """
    # The last few first: the graph, and so the memory, is theirs only.
    last = _find_last_live_layer(
        network, layers[-DEFAULT_SEARCH_DEPTH:], size
    ) or _find_last_live_layer(network, layers, size)
    if last is None:
        raise LayerError("the class score depends on no map in this model; name one with --layers")
    return choose_numbered_layer(last, layers)


def find_live_layer_names(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> frozenset[str]:
    """The layers whose map the predicted class of a probe depends on, by name."""
    _logits, gradients = _compute_probe_gradients(network, layers, size)
    return frozenset(
        la.name for la, g in zip(layers, gradients, strict=True) if output_to_map(g, la).any()
    )


def _compute_probe_gradients(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> tuple[Tensor, Sequence[Tensor]]:
    with record_outputs(network, graph_layers=[layer.name for layer in layers]) as recorded:
        logits = network(create_probe_image(network, size))
        tapped = [recorded.graph_outputs[layer.name] for layer in layers]
        return logits, compute_gradients(logits.max(), tapped)


def _find_last_live_layer(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> Layer | None:
    logits, gradients = _compute_probe_gradients(network, layers, size)
    for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        moved = output_to_map(gradient, layer)[0].flatten(1) != 0
        widths = (2, 1) if logits.shape[1] == 2 else (logits.shape[1],)  # one logit is two classes
        answers = layer.channels in widths and int(moved.any(dim=1).sum()) == 1
        # One place only: the class is read off elsewhere, and this is the maximum of an aside.
        if int(moved.any(dim=0).sum()) > 1 and not answers:
            return layer
    return None


def choose_numbered_layer(candidate: Layer, layers: Iterable[Layer]) -> Layer:
    """Among names for the same output (`stages`, `stages.3`) the stage or block, if any."""
    same = (layer for layer in layers if layer.output_id == candidate.output_id)
    known = (layer for layer in same if layer.stage is not None or layer.block is not None)
    return next(known, candidate)
