"""Needs -> taps -> one forward -> one backward a target -> maps. Writes no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from camcli import attention, heads
from camcli.layers import spatial
from camcli.maps import fuse, normalise, paste, statuses
from camcli.methods import Method
from camcli.models import Model
from camcli.plan import Request
from camcli.records import Crops, Layer, Status
from camcli.taps import Reading, Recorded, record


@dataclass(frozen=True, slots=True)
class Maps:
    """One map a sample: as computed (B,h,w), as shown in [0, 1], and what can be said of each."""

    name: str
    values: Tensor
    shown: Tensor
    status: list[Status]


@dataclass(frozen=True, slots=True)
class Chosen:
    """One class a sample (B,): its softmax probability, and how many classes rank above it.

    `of_inputs` has the class once for each input.
    """

    classes: Tensor
    scores: Tensor
    ranks: Tensor
    of_inputs: Tensor


@dataclass(frozen=True, slots=True)
class Explained:
    """What one request found for one target of every sample."""

    request: Request
    chosen: Chosen
    fused: Maps
    layers: tuple[Maps, ...]
    parts: tuple[Maps, ...] = ()


def explain(
    model: Model,
    inputs: Tensor,
    requests: Sequence[Request],
    choose: Callable[[Tensor], Tensor],
    crops: Crops | None = None,
) -> list[list[Explained]]:
    """Maps for a batch: (B,3,H,W) -> for each request, for each target, one map a sample.

    `choose` turns logits (B,K) into classes (B,T). One forward pass; one backward pass a target,
    from the shallowest tap only, if any method needs gradients. With `crops` a sample is V inputs
    in a row, (B V,3,H,W): its logits are their mean, its map is made of theirs, each in its place.
    """
    canvas = _Canvas((inputs.shape[2], inputs.shape[3]), crops)
    taps, readings = _record(requests)
    with ExitStack() as stack:
        for rows in {id(r.rows): r.rows for r in requests}.values():
            stack.enter_context(attention.unfuse(rows))
        recorded = stack.enter_context(record(model.network, taps, readings))
        logits = model.network(inputs)
        pooled = logits.detach().float().reshape(-1, canvas.views, logits.shape[1]).mean(dim=1)
        chosen = [_chosen(pooled, targets, canvas.views) for targets in choose(pooled).T]
        gradients = [_gradients(logits, target.of_inputs, recorded) for target in chosen]
    with torch.no_grad():
        return [
            [
                _answer(request, recorded, found, target, canvas)
                for found, target in zip(gradients, chosen, strict=True)
            ]
            for request in requests
        ]


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Where a sample's maps lie: each as it is, or those of its crops put together."""

    inputs: tuple[int, int]
    crops: Crops | None

    @property
    def views(self) -> int:
        """How many inputs a sample is."""
        return len(self.crops.corners) if self.crops else 1

    @property
    def size(self) -> tuple[int, int]:
        """The size (H, W) at which layers are fused."""
        return self.crops.size if self.crops else self.inputs

    def whole(self, maps: Tensor, method: Method) -> Tensor:
        """One map a sample: (B V,h,w) -> (B,H,W), or as they are."""
        return paste(maps, self.crops, self.inputs, mean=method.signed) if self.crops else maps

    def all_of(self, flags: Tensor) -> Tensor:
        """Whether it holds for all inputs of a sample: (B V,) -> (B,)."""
        return flags.reshape(-1, self.views).all(dim=1)


def _chosen(logits: Tensor, classes: Tensor, views: int) -> Chosen:
    own = logits.gather(1, classes[:, None])
    scores = logits.softmax(dim=1).gather(1, classes[:, None])[:, 0]
    # Of equal logits the first class ranks first; a logit that is NaN ranks last.
    after = torch.arange(logits.shape[1], device=logits.device) >= classes[:, None]
    ranks = logits.shape[1] - ((logits < own) | ((logits == own) & after)).sum(dim=1)
    return Chosen(classes, scores, ranks, classes.repeat_interleave(views))


def _record(requests: Sequence[Request]) -> tuple[list[str], dict[str, Reading]]:
    graph = {la.name for r in requests if r.method.per_layer for la in r.layers}
    readings: dict[str, Reading] = {}
    for request in requests:
        if request.head:
            readings[request.head.layer.name] = Tensor.clone
        if request.rows:
            readings |= request.rows.readings
    return list(graph), readings


def _gradients(logits: Tensor, targets: Tensor, recorded: Recorded) -> dict[str, Tensor]:
    """d sum_b logit_b / d tap, for every tap: samples do not mix, so it is each one's own."""
    if not recorded.taps:
        return {}
    score = logits.gather(1, targets[:, None]).sum()
    found = torch.autograd.grad(
        score, list(recorded.taps.values()), retain_graph=True, materialize_grads=True
    )
    return dict(zip(recorded.taps, found, strict=True))


def _answer(
    request: Request,
    recorded: Recorded,
    gradients: dict[str, Tensor],
    chosen: Chosen,
    canvas: _Canvas,
) -> Explained:
    if request.method.per_layer:
        layers = tuple(
            _layer_maps(request, layer, recorded, gradients, canvas) for layer in request.layers
        )
        fused = layers[0] if len(layers) == 1 else _fused(request, layers, canvas.size)
        return Explained(request, chosen, fused, layers)
    return _whole(request, recorded, chosen, canvas)


def _layer_maps(
    request: Request,
    layer: Layer,
    recorded: Recorded,
    gradients: dict[str, Tensor],
    canvas: _Canvas,
) -> Maps:
    activation = spatial(recorded.taps[layer.name], layer).detach().float()
    gradient = spatial(gradients[layer.name], layer).float()
    each = request.method.function(activation, gradient, **request.options)
    values = canvas.whole(each, request.method)
    shown = request.fusion.scale(values, canvas.inputs[0] / layer.grid[0])
    dead = canvas.all_of(~gradient.flatten(1).any(dim=1))
    return Maps(layer.name, values, shown, statuses(values, dead))


def _fused(request: Request, layers: Sequence[Maps], size: tuple[int, int]) -> Maps:
    values = fuse([layer.shown for layer in layers], request.fusion, size)
    dead = [all(layer.status[b] == "zero_gradient" for layer in layers) for b in range(len(values))]
    return _maps("fused", values, torch.tensor(dead))


def _maps(name: str, values: Tensor, dead: Tensor | None = None) -> Maps:
    flags = torch.zeros(len(values), dtype=torch.bool) if dead is None else dead
    return Maps(name, values, normalise(values), statuses(values, flags))


def _whole(request: Request, recorded: Recorded, chosen: Chosen, canvas: _Canvas) -> Explained:
    """A method that reads the network as a whole: its needs, and the maps among them as parts."""
    needs: dict[str, Tensor] = {}
    if request.rows:
        needs["attention"] = request.rows.stack(recorded.readings)
    if request.head:
        output = recorded.readings[request.head.layer.name]
        needs["semantic"], needs["class_bias"] = heads.semantic(
            request.head, output, chosen.of_inputs
        )
    wanted = {name: needs[name] for name in request.method.needs}

    def maps(name: str, values: Tensor) -> Maps:
        return _maps(name, canvas.whole(values, request.method))

    fused = maps("fused", request.method.function(**wanted, **request.options))
    if not request.rows:
        return Explained(request, chosen, fused, ())
    rows = needs["attention"]
    blocks = tuple(maps(block.name, rows[:, i]) for i, block in enumerate(request.rows.blocks))
    parts = [maps("attention", rows.sum(dim=1))]
    if "semantic" in wanted:
        parts.append(maps("semantic", needs["semantic"] + needs["class_bias"][:, None, None]))
    return Explained(request, chosen, fused, blocks, tuple(parts))
