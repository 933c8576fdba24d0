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
from camcli.engine.postprocess import (
    BatchExplanation,
    CropLayout,
    RawMaps,
    TargetScores,
    average_raw_maps,
    create_batch_explanation,
)
from camcli.engine.providers.base import PassState, ProgressCallback
from camcli.engine.providers.registry import PROVIDERS, provide_input
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.engine.targets import compute_one_hot_weights
from camcli.models.introspection.attention import disable_fused_attention
from camcli.models.introspection.hooks import (
    Recording,
    TensorFunction,
    compute_gradients,
    record_outputs,
)
from camcli.models.model import Model

ClassChooser = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """What else can be said of how to explain: crops, smoothing, the score, and altered inputs.

    `weigh` makes the score (B,K) of logits and classes; `chunk` altered inputs are computed at a
    time, of which `tick(done, of)` is told.
    """

    crops: Crops | None = None
    smoothing: Smoothing = NO_SMOOTHING
    weight_logits: Callable[[Tensor, Tensor], Tensor] = compute_one_hot_weights
    chunk_size: int = 8
    report_progress: ProgressCallback = lambda _done, _of: None


def explain_batch(
    model: Model,
    inputs: Tensor,
    requests: Sequence[Request],
    choose_classes: ClassChooser,
    options: ExplainOptions = ExplainOptions(),
) -> list[list[BatchExplanation]]:
    """Maps for a batch: (B,3,H,W) -> for each request, for each target, one map a sample.

    `choose` turns logits (B,K) into classes (B,T). One forward pass; one backward pass a target,
    from the shallowest tap only, if any method needs gradients; and what some methods need besides.
    With crops a sample is V inputs in a row, (B V,3,H,W): its logits are their mean, its map is
    made of theirs, each in its place. With smoothing there is a pass for each view besides.
    """
    canvas = CropLayout((inputs.shape[2], inputs.shape[3]), options.crops)
    asked = _BatchContext(model, requests, choose_classes, options, canvas)
    chosen: list[TargetScores] | None = None
    if options.smoothing.alters_image:  # the classes are those of the image itself
        with torch.no_grad():
            chosen = asked.choose_targets(model.network(inputs))
    looks = []
    for view, mirrored in options.smoothing.iter_views(inputs):
        found, chosen = _explain_view(asked, view, chosen)
        looks.append([[raw.flip() if mirrored else raw for raw in row] for row in found])
    assert chosen is not None
    return [
        [
            create_batch_explanation(
                request, average_raw_maps([look[r][t] for look in looks]), target, canvas
            )
            for t, target in enumerate(chosen)
        ]
        for r, request in enumerate(requests)
    ]


@dataclass(frozen=True, slots=True)
class _BatchContext:
    """What is asked of a batch."""

    model: Model
    requests: Sequence[Request]
    choose_classes: ClassChooser
    options: ExplainOptions
    canvas: CropLayout

    def choose_targets(self, logits: Tensor) -> list[TargetScores]:
        """The targets of every sample, from the logits of its inputs."""
        views, classes = self.canvas.inputs_per_sample, logits.shape[1]
        pooled = logits.detach().float().reshape(-1, views, classes).mean(dim=1)
        probabilities = self.model.to_probabilities(pooled)
        return [
            _compute_target_scores(
                pooled, probabilities, column, self.options.weight_logits(pooled, column)
            )
            for column in self.choose_classes(pooled).T
        ]


def _explain_view(
    context: _BatchContext, inputs: Tensor, fixed_targets: list[TargetScores] | None
) -> tuple[list[list[RawMaps]], list[TargetScores]]:
    """One forward pass, and what every request makes of it for every target."""
    network, requests = context.model.network, context.requests
    wanted = [
        (PROVIDERS[need], request) for request in requests for need in request.method.input_names
    ]
    taps = dict.fromkeys(
        name for need, request in wanted for name in need.list_graph_layers(request)
    )
    copies = {
        name for need, request in wanted for name in need.list_copied_layers(request)
    } - taps.keys()
    readings: dict[str, TensorFunction] = {}
    for need, request in wanted:
        readings |= need.find_reducers(request)
    own_graph = any(need.needs_input_graph for need, _ in wanted)
    source = inputs.detach().requires_grad_(own_graph)
    with ExitStack() as stack:
        if any(need.needs_double_backward for need, _ in wanted):
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        for modules in {_list_fused_modules(request) for request in requests}:
            stack.enter_context(disable_fused_attention(modules))
        recorded = stack.enter_context(
            record_outputs(network, list(taps), readings, copies, build_graph=own_graph)
        )
        logits = network(source)
    targets = fixed_targets or context.choose_targets(logits)
    columns = []
    for target in targets:  # one after another: each holds the gradients of every tap
        seen = _create_pass_state(context, source, logits, recorded, target)
        columns.append([_compute_raw_maps(request, seen) for request in requests])
    return [list(row) for row in zip(*columns, strict=True)], targets


def _list_fused_modules(request: Request) -> tuple[object, ...]:
    return tuple(m for own in (request.rows, request.matrices) if own for m in own.fused_modules)


def _compute_target_scores(
    logits: Tensor, probabilities: Tensor, class_indices: Tensor, weights: Tensor
) -> TargetScores:
    own = logits.gather(1, class_indices[:, None])
    # Of equal logits the first class ranks first; a logit that is NaN ranks last.
    after = torch.arange(logits.shape[1], device=logits.device) >= class_indices[:, None]
    ranks = logits.shape[1] - ((logits < own) | ((logits == own) & after)).sum(dim=1)
    return TargetScores(
        class_indices, probabilities.gather(1, class_indices[:, None])[:, 0], ranks, weights
    )


def _create_pass_state(
    context: _BatchContext,
    inputs: Tensor,
    logits: Tensor,
    recorded: Recording,
    target: TargetScores,
) -> PassState:
    score = target.logit_weights.repeat_interleave(context.canvas.inputs_per_sample, dim=0)
    sources = recorded.graph_outputs | ({"": inputs} if inputs.requires_grad else {})
    gradients = _compute_score_gradients((logits * score).sum(), sources) if sources else {}
    return PassState(
        network=context.model.network,
        inputs=inputs,
        logits=logits,
        recording=recorded,
        logit_weights=score,
        gradients=gradients,
        to_probabilities=context.model.to_probabilities,
        chunk_size=context.options.chunk_size,
        report_progress=context.options.report_progress,
    )


def _compute_score_gradients(score: Tensor, sources: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the sum of all images' scores: samples do not mix, so it is each one's own."""
    found = compute_gradients(score, list(sources.values()), retain_graph=True)
    return dict(zip(sources, found, strict=True))


def _compute_raw_maps(request: Request, state: PassState) -> RawMaps:
    """What a method makes of what it needs: a map a layer, or one, with those it is made of."""
    method = request.method

    def compute_map(layer: Layer | None) -> Tensor:
        wanted = [provide_input(need, state, request, layer) for need in method.input_names]
        with torch.no_grad():
            return request.to_map(method.function(*wanted, **request.options))

    if method.per_layer:
        dead = {la.name: _find_zero_gradients(request, state, la) for la in request.layers}
        if method.returns == "concepts":
            return RawMaps(_split_concepts(request, compute_map), dead)
        return RawMaps({layer.name: compute_map(layer) for layer in request.layers}, dead)
    return RawMaps({"fused": compute_map(None), **_collect_part_maps(request, state)})


def _split_concepts(
    request: Request, compute_map: Callable[[Layer | None], Tensor]
) -> dict[str, Tensor]:
    """Each concept of each layer; the layer's own map is the strongest of them everywhere."""
    maps: dict[str, Tensor] = {}
    for layer in request.layers:
        found = compute_map(layer)
        maps[layer.name] = found.amax(dim=1)
        before = f"{layer.name} " if len(request.layers) > 1 else ""
        for n, one in enumerate(found.unbind(dim=1), start=1):
            maps[f"{before}concept {n}"] = one
    return maps


def _find_zero_gradients(request: Request, state: PassState, layer: Layer) -> Tensor:
    """Whether nothing of the layer's map reaches the score (B V,), where gradients tell."""
    if "gradients" not in request.method.input_names:
        return torch.zeros(len(state.inputs), dtype=torch.bool, device=state.inputs.device)
    gradient: Tensor = provide_input("gradients", state, request, layer)
    return ~gradient.flatten(1).any(dim=1)


def _collect_part_maps(request: Request, state: PassState) -> dict[str, Tensor]:
    """The maps that a method's needs already are: rows of attention, and the semantic map."""
    if not request.rows:
        return {}
    rows: Tensor = provide_input("attention", state, request, None)
    parts = {block.name: rows[:, i] for i, block in enumerate(request.rows.block_layers)}
    parts["attention"] = rows.sum(dim=1)
    if request.head:
        bias: Tensor = provide_input("class_bias", state, request, None)
        semantic: Tensor = provide_input("semantic", state, request, None)
        parts["semantic"] = semantic + bias[:, None, None]
    return parts
