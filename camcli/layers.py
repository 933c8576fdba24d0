"""What can be tapped in a network, measured by one forward pass, and how users name it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camcli.errors import LayerError, hint
from camcli.families import Family
from camcli.records import Layer, Layout
from camcli.taps import record

STAGES = re.compile(r"stage(-?\d{1,4})(?:\.\.(?:stage)?(-?\d{1,4}))?")


def probe(network: nn.Module, size: tuple[int, int]) -> Tensor:
    """A fixed noise image (1, 3, H, W) on the network's device: any real input would do."""
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(next(network.parameters()).device)


def survey(network: nn.Module, family: Family, size: tuple[int, int]) -> tuple[Layer, ...]:
    """Every layer whose output is a map, in the order in which a forward pass completes them."""
    shapes: dict[str, tuple[int, ...]] = {}
    names = [n for n, m in network.named_modules() if n and not isinstance(m, PASSING)]
    inside = {n for n in names if _inside_attention(network, n)}

    def note(name: str) -> Any:
        def read(output: Any) -> Tensor:
            shapes[name] = tuple(output.shape) if isinstance(output, Tensor) else ()
            return torch.empty(0)

        return read

    with record(network, readings={n: note(n) for n in names if n not in inside}):
        network(probe(network, size))
    prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
    fmt = str(getattr(network, "output_fmt", "NCHW"))
    found = (_layer(name, shape, size, prefix, fmt) for name, shape in shapes.items())
    stages = {name: n for n, name in enumerate(family.stages(network), start=1)}
    blocks = {name: n for n, name in enumerate(family.blocks(network))}
    return tuple(
        replace(layer, stage=stages.get(layer.name), block=blocks.get(layer.name))
        for layer in found
        if layer
    )


PASSING = (nn.Identity, nn.Dropout)  # they hand on what they were given


def _inside_attention(network: nn.Module, name: str) -> bool:
    """Attention matrices and split heads can have the shape of a map, and are none."""
    parts = name.split(".")[:-1]
    parents = (network.get_submodule(".".join(parts[: i + 1])) for i in range(len(parts)))
    return any(hasattr(parent, "num_heads") for parent in parents)


def _layer(
    name: str, shape: tuple[int, ...], size: tuple[int, int], prefix: int, fmt: str
) -> Layer | None:
    if len(shape) == 4 and shape[0] == 1:
        for layout in sorted(_ORDERS, key=lambda known: known != fmt):
            channels, *grid = (shape[i] for i in _ORDERS[layout])
            if _aspect(grid[0], grid[1], size):
                return Layer(name, layout, channels, (grid[0], grid[1]))
    if len(shape) == 3 and shape[0] == 1:
        for extra in dict.fromkeys((prefix, 0)):
            rows = round(math.sqrt((shape[1] - extra) * size[0] / size[1])) or 1
            cols = (shape[1] - extra) // rows
            if rows * cols == shape[1] - extra and _aspect(rows, cols, size):
                return Layer(name, "NLC", shape[2], (rows, cols), extra)
    return None


_ORDERS: Mapping[Layout, tuple[int, int, int]] = {"NCHW": (1, 2, 3), "NHWC": (3, 1, 2)}


def _aspect(rows: int, cols: int, size: tuple[int, int]) -> bool:
    """Whether rows x cols is the input's grid at one stride, but for padding under a cell."""
    stride = size[0] / rows
    return rows * cols > 1 and rows <= size[0] and abs(size[1] / stride - cols) < 1


def spatial(tensor: Tensor, layer: Layer) -> Tensor:
    """A layer's output as a map: NCHW, NHWC or tokens -> (B, C, H, W)."""
    if layer.layout == "NCHW":
        return tensor
    if layer.layout == "NHWC":
        return tensor.permute(0, 3, 1, 2)
    patches = tensor[:, layer.prefix :].transpose(1, 2)
    return patches.reshape(len(tensor), -1, *layer.grid)


def tokens(maps: Tensor, like: Tensor, layer: Layer) -> Tensor:
    """Maps (n,C,H,W) as a layer's output, prefix tokens as in `like` (1,...): undoes `spatial`."""
    if layer.layout == "NCHW":
        return maps
    if layer.layout == "NHWC":
        return maps.permute(0, 2, 3, 1)
    prefix = like[:, : layer.prefix].expand(len(maps), -1, -1)
    return torch.cat([prefix, maps.flatten(2).transpose(1, 2)], dim=1)


def default(network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]) -> Layer:
    """The last layer whose map the predicted class depends on: its gradient there is not zero.

    CLS-pooled transformers have exactly zero patch gradient after their last attention, so it is
    measured. A map a class (TS-CAM's head) is an answer, not a feature.
    """
    if not layers:
        raise LayerError("no layer of this model yields a map at this input size; try --size")
    with record(network, taps=[layer.name for layer in layers]) as recorded:
        logits = network(probe(network, size))
        tapped = [recorded.taps[layer.name] for layer in layers]
        gradients = torch.autograd.grad(logits.max(), tapped, materialize_grads=True)
    live = [
        layer
        for layer, output, gradient in zip(layers, tapped, gradients, strict=True)
        if bool(spatial(gradient, layer).any()) and not _answers(spatial(output, layer), logits)
    ]
    if not live:
        raise LayerError("the class score depends on no map in this model; name one with --layers")
    return proper(live[-1], live)


def _answers(maps: Tensor, logits: Tensor) -> bool:
    """Whether (B, K, H, W) maps are already one a class: the logits are their mean."""
    return maps.shape[1] == logits.shape[1] and torch.allclose(
        maps.mean(dim=(2, 3)), logits, rtol=1e-3, atol=1e-4
    )


def proper(last: Layer, layers: Sequence[Layer]) -> Layer:
    """Among names for the same output (`stages`, `stages.3`) the stage or block, if any."""
    known = [layer for layer in layers if layer.stage is not None or layer.block is not None]
    return next((layer for layer in reversed(known) if _nested(layer, last)), last)


def _nested(layer: Layer, other: Layer) -> bool:
    inner, outer = sorted((layer.name, other.name), key=len, reverse=True)
    return f"{inner}.".startswith(f"{outer}.") and layer.grid == other.grid


def resolve(spec: str, layers: Sequence[Layer], last: Callable[[], Layer]) -> tuple[Layer, ...]:
    """The layers that `--layers` names, in the order given.

    A comma-separated list of `stage3`, `stage1..5`, `last`, `all` (every stage, or every block)
    and module names; `last` is measured only when asked for. Raises LayerError, with near matches,
    for what is not there.
    """
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    found = dict.fromkeys(layer for part in parts for layer in _part(part, layers, last))
    if not found:
        raise LayerError("--layers names nothing; try `last`, `all` or a name from `camcli layers`")
    return tuple(found)


def _part(part: str, layers: Sequence[Layer], last: Callable[[], Layer]) -> Iterator[Layer]:
    if part == "last":
        yield last()
    elif part == "all":
        yield from [la for la in layers if la.stage is not None or la.block is not None] or [last()]
    elif match := STAGES.fullmatch(part):
        first, until = int(match[1]), int(match[2] or match[1])
        yield from (_stage(number, layers) for number in range(first, until + 1))
    else:
        yield named(part, layers)


def named(name: str, layers: Sequence[Layer]) -> Layer:
    """The layer of that name. Raises LayerError, with near matches."""
    known = {layer.name: layer for layer in layers}
    if name not in known:
        near = hint(name, known)
        raise LayerError(f"no layer {name!r} yields a map{near} (`camcli layers` lists them)")
    return known[name]


def _stage(number: int, layers: Sequence[Layer]) -> Layer:
    stages = {layer.stage: layer for layer in layers if layer.stage is not None}
    if not stages:
        blocks = any(layer.block is not None for layer in layers)
        instead = "it has blocks: --block N or --layers blocks.N" if blocks else "name its layers"
        raise LayerError(f"stage{number}: this model has no stages; {instead}")
    if number not in stages:
        raise LayerError(f"no stage{number}: this model has stage{min(stages)}..{max(stages)}")
    return stages[number]


def block(number: int, layers: Sequence[Layer]) -> Layer:
    """The input side of the attention of block N, negatives counted from the end: its norm1."""
    blocks = [layer for layer in layers if layer.block is not None]
    if not blocks:
        raise LayerError("--block: this model has no transformer blocks; use --layers")
    if not -len(blocks) <= number < len(blocks):
        raise LayerError(f"--block {number}: this model has blocks 0..{len(blocks) - 1}")
    return named(f"{blocks[number].name}.norm1", layers)
