"""Needs -> taps -> one forward -> one backward a target -> maps. Writes no files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from camcli.core.geometry import Crops
from camcli.core.types import Layer
from camcli.engine.postprocess import Canvas, Chosen, Explained, Raw, finished, mean
from camcli.engine.providers import registry
from camcli.engine.providers.base import Pass, Tick
from camcli.engine.providers.registry import NEEDS
from camcli.engine.request import Request
from camcli.engine.smoothing import NONE, Smoothing
from camcli.engine.targets import one_class
from camcli.models.introspection import attention
from camcli.models.introspection.hooks import (
    Recording,
    TensorFunction,
    compute_gradients,
    record_outputs,
)
from camcli.models.model import Model

Choose = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class How:
    """What else can be said of how to explain: crops, smoothing, the score, and altered inputs.

    `weigh` makes the score (B,K) of logits and classes; `chunk` altered inputs are computed at a
    time, of which `tick(done, of)` is told.
    """

    crops: Crops | None = None
    smoothing: Smoothing = NONE
    weigh: Callable[[Tensor, Tensor], Tensor] = one_class
    chunk: int = 8
    tick: Tick = lambda _done, _of: None


def explain(
    model: Model,
    inputs: Tensor,
    requests: Sequence[Request],
    choose: Choose,
    how: How = How(),
) -> list[list[Explained]]:
    """Maps for a batch: (B,3,H,W) -> for each request, for each target, one map a sample.

    `choose` turns logits (B,K) into classes (B,T). One forward pass; one backward pass a target,
    from the shallowest tap only, if any method needs gradients; and what some methods need besides.
    With crops a sample is V inputs in a row, (B V,3,H,W): its logits are their mean, its map is
    made of theirs, each in its place. With smoothing there is a pass for each view besides.
    """
    canvas = Canvas((inputs.shape[2], inputs.shape[3]), how.crops)
    asked = _Asked(model, requests, choose, how, canvas)
    chosen: list[Chosen] | None = None
    if how.smoothing.moves:  # the classes are those of the image itself
        with torch.no_grad():
            chosen = asked.choices(model.network(inputs))
    looks = []
    for view, mirrored in how.smoothing.views(inputs):
        found, chosen = _look(asked, view, chosen)
        looks.append([[raw.flipped() if mirrored else raw for raw in row] for row in found])
    assert chosen is not None
    return [
        [
            finished(request, mean([look[r][t] for look in looks]), target, canvas)
            for t, target in enumerate(chosen)
        ]
        for r, request in enumerate(requests)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of a batch."""

    model: Model
    requests: Sequence[Request]
    choose: Choose
    how: How
    canvas: Canvas

    def choices(self, logits: Tensor) -> list[Chosen]:
        """The targets of every sample, from the logits of its inputs."""
        views, classes = self.canvas.views, logits.shape[1]
        pooled = logits.detach().float().reshape(-1, views, classes).mean(dim=1)
        probabilities = self.model.to_probabilities(pooled)
        return [
            _chosen(pooled, probabilities, column, self.how.weigh(pooled, column))
            for column in self.choose(pooled).T
        ]


def _look(
    asked: _Asked, inputs: Tensor, chosen: list[Chosen] | None
) -> tuple[list[list[Raw]], list[Chosen]]:
    """One forward pass, and what every request makes of it for every target."""
    network, requests = asked.model.network, asked.requests
    wanted = [(NEEDS[need], request) for request in requests for need in request.method.input_names]
    taps = dict.fromkeys(name for need, request in wanted for name in need.taps(request))
    copies = {name for need, request in wanted for name in need.copies(request)} - taps.keys()
    readings: dict[str, TensorFunction] = {}
    for need, request in wanted:
        readings |= need.readings(request)
    own_graph = any(need.input_graph for need, _ in wanted)
    source = inputs.detach().requires_grad_(own_graph)
    with ExitStack() as stack:
        if any(need.twice for need, _ in wanted):
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        for modules in {_unfused(request) for request in requests}:
            stack.enter_context(attention.disable_fused_attention(modules))
        recorded = stack.enter_context(
            record_outputs(network, list(taps), readings, copies, build_graph=own_graph)
        )
        logits = network(source)
    targets = chosen or asked.choices(logits)
    columns = []
    for target in targets:  # one after another: each holds the gradients of every tap
        seen = _pass(asked, source, logits, recorded, target)
        columns.append([_raw(request, seen) for request in requests])
    return [list(row) for row in zip(*columns, strict=True)], targets


def _unfused(request: Request) -> tuple[object, ...]:
    return tuple(m for own in (request.rows, request.matrices) if own for m in own.fused_modules)


def _chosen(logits: Tensor, probabilities: Tensor, classes: Tensor, weights: Tensor) -> Chosen:
    own = logits.gather(1, classes[:, None])
    # Of equal logits the first class ranks first; a logit that is NaN ranks last.
    after = torch.arange(logits.shape[1], device=logits.device) >= classes[:, None]
    ranks = logits.shape[1] - ((logits < own) | ((logits == own) & after)).sum(dim=1)
    return Chosen(classes, probabilities.gather(1, classes[:, None])[:, 0], ranks, weights)


def _pass(
    asked: _Asked, inputs: Tensor, logits: Tensor, recorded: Recording, target: Chosen
) -> Pass:
    score = target.weights.repeat_interleave(asked.canvas.views, dim=0)
    sources = recorded.graph_outputs | ({"": inputs} if inputs.requires_grad else {})
    gradients = _gradients((logits * score).sum(), sources) if sources else {}
    return Pass(
        network=asked.model.network,
        inputs=inputs,
        logits=logits,
        recorded=recorded,
        score=score,
        gradients=gradients,
        probabilities=asked.model.to_probabilities,
        chunk=asked.how.chunk,
        tick=asked.how.tick,
    )


def _gradients(score: Tensor, sources: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of all images' scores: samples do not mix, so it is each one's own."""
    found = compute_gradients(score, list(sources.values()), retain_graph=True)
    return dict(zip(sources, found, strict=True))


def _raw(request: Request, seen: Pass) -> Raw:
    """What a method makes of what it needs: a map a layer, or one, with those it is made of."""
    method = request.method

    def of(layer: Layer | None) -> Tensor:
        wanted = [registry.gather(need, seen, request, layer) for need in method.input_names]
        with torch.no_grad():
            return request.join(method.function(*wanted, **request.options))

    if method.per_layer:
        dead = {la.name: _dead(request, seen, la) for la in request.layers}
        if method.returns == "concepts":
            return Raw(_concepts(request, of), dead)
        return Raw({layer.name: of(layer) for layer in request.layers}, dead)
    return Raw({"fused": of(None), **_parts(request, seen)})


def _concepts(request: Request, of: Callable[[Layer | None], Tensor]) -> dict[str, Tensor]:
    """Each concept of each layer; the layer's own map is the strongest of them everywhere."""
    maps: dict[str, Tensor] = {}
    for layer in request.layers:
        found = of(layer)
        maps[layer.name] = found.amax(dim=1)
        before = f"{layer.name} " if len(request.layers) > 1 else ""
        for n, one in enumerate(found.unbind(dim=1), start=1):
            maps[f"{before}concept {n}"] = one
    return maps


def _dead(request: Request, seen: Pass, layer: Layer) -> Tensor:
    """Whether nothing of the layer's map reaches the score (B V,), where gradients tell."""
    if "gradients" not in request.method.input_names:
        return torch.zeros(len(seen.inputs), dtype=torch.bool, device=seen.inputs.device)
    gradient: Tensor = registry.gather("gradients", seen, request, layer)
    return ~gradient.flatten(1).any(dim=1)


def _parts(request: Request, seen: Pass) -> dict[str, Tensor]:
    """The maps that a method's needs already are: rows of attention, and the semantic map."""
    if not request.rows:
        return {}
    rows: Tensor = registry.gather("attention", seen, request, None)
    parts = {block.name: rows[:, i] for i, block in enumerate(request.rows.block_layers)}
    parts["attention"] = rows.sum(dim=1)
    if request.head:
        bias: Tensor = registry.gather("class_bias", seen, request, None)
        semantic: Tensor = registry.gather("semantic", seen, request, None)
        parts["semantic"] = semantic + bias[:, None, None]
    return parts
