"""Explain a batch: one recorded forward pass, one backward pass per target, then the maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camcli.core.geometry import Crops
from camcli.core.types import Layer
from camcli.engine.method_call import call_method
from camcli.engine.pass_state import PassState
from camcli.engine.postprocess import (
    BatchExplanation,
    CropLayout,
    MapBatch,
    TargetScores,
    average_maps,
    create_batch_explanation,
    create_map_batch,
    flip_maps,
)
from camcli.engine.providers.base import PassNeeds, ProgressCallback
from camcli.engine.providers.gradients import GRADIENTS
from camcli.engine.providers.provider_registry import gather_needs, list_providers, provide_input
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.engine.target_rules import TargetColumn, create_class_columns
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.models.introspection.hooks import Recording, compute_gradients, record_outputs
from camcli.models.model import Model

ClassChooser = Callable[[Tensor], Tensor | Sequence[TargetColumn]]
TargetChooser = Callable[[Tensor], Sequence[TargetScores]]


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """The options of an explanation, besides methods and classes.

    `crops` are the inputs that an image was cut into. At most `chunk_size` altered inputs go
    through the network at a time; `report_progress` is called with (done, total) after each chunk.
    """

    crops: Crops | None = None
    smoothing: Smoothing = NO_SMOOTHING
    chunk_size: int = 8
    report_progress: ProgressCallback = lambda _done, _total: None


@allow_gradients()
def explain_batch(
    model: Model,
    inputs: Tensor,
    requests: Sequence[Request],
    choose_classes: ClassChooser,
    options: ExplainOptions = ExplainOptions(),
) -> list[list[BatchExplanation]]:
    """Explain a batch (B,3,H,W): for each request and each target, one map for every image.

    `choose_classes` turns logits (B,K) into classes (B,T), or into columns that also have the
    weights of a score. All methods share one forward pass, and one backward pass per target that
    stops at the shallowest recorded layer; some methods run further passes. With crops, each image
    is V inputs in a row, (B V,3,H,W): camcli averages their logits, and joins their maps at their
    places. With smoothing, every view has its own pass.
    """
    layout = CropLayout((inputs.shape[2], inputs.shape[3]), options.crops)
    context = _BatchContext(model, requests, choose_classes, options, layout)
    choose_targets = _create_target_chooser(context, inputs)
    views = [
        _explain_view(context, view, choose_targets, is_mirrored=is_mirrored)
        for view, is_mirrored in options.smoothing.iter_views(inputs)
    ]
    by_target = [_join_views(context, same_target) for same_target in zip(*views, strict=True)]
    return [list(row) for row in zip(*by_target, strict=True)]


@dataclass(frozen=True, slots=True)
class _BatchContext:
    """The settings that all passes of a batch share."""

    model: Model
    requests: Sequence[Request]
    choose_classes: ClassChooser
    options: ExplainOptions
    layout: CropLayout

    def choose_targets(self, logits: Tensor) -> list[TargetScores]:
        """Choose the targets of every image from the logits of its inputs."""
        views, classes = self.layout.inputs_per_sample, logits.shape[1]
        pooled = logits.detach().float().reshape(-1, views, classes).mean(dim=1)
        probabilities = self.model.to_probabilities(pooled)
        chosen = self.choose_classes(pooled)
        columns = create_class_columns(pooled, chosen) if isinstance(chosen, Tensor) else chosen
        return [_compute_target_scores(pooled, probabilities, column) for column in columns]


@dataclass(frozen=True, slots=True)
class _TargetMaps:
    """The maps of one view for one target, for each request."""

    target_scores: TargetScores
    maps_by_request: list[list[MapBatch]]


def _create_target_chooser(context: _BatchContext, inputs: Tensor) -> TargetChooser:
    """The function that chooses targets from the logits of a view.

    If views differ from the image, the targets are those of the image itself.
    """
    if not context.options.smoothing.alters_image:
        return context.choose_targets
    with torch.no_grad():
        targets = context.choose_targets(context.model.network(inputs))
    return lambda _logits: targets


def _explain_view(
    context: _BatchContext, inputs: Tensor, choose_targets: TargetChooser, *, is_mirrored: bool
) -> list[_TargetMaps]:
    """Run one forward pass, and make the maps of every target and request."""
    needs = gather_needs(context.requests)
    source = inputs.detach().requires_grad_(needs.input_graph)
    with _record_pass(context.model.network, needs) as recording:
        logits = context.model.network(source)
    found = []
    for target in choose_targets(logits):  # in turn: each holds the gradients of every layer
        state = _create_pass_state(context, source, logits, recording, target)
        maps = [_compute_maps(request, state) for request in context.requests]
        upright = [[flip_maps(m) for m in row] for row in maps] if is_mirrored else maps
        found.append(_TargetMaps(target, upright))
    return found


def _join_views(context: _BatchContext, views: Sequence[_TargetMaps]) -> list[BatchExplanation]:
    """For one target, each request's explanation from the maps of all views."""
    explanations = []
    for request, *rows in zip(
        context.requests, *(view.maps_by_request for view in views), strict=True
    ):
        maps = [average_maps(same_map) for same_map in zip(*rows, strict=True)]
        explanations.append(
            create_batch_explanation(request, maps, views[0].target_scores, context.layout)
        )
    return explanations


@contextmanager
def _record_pass(network: nn.Module, needs: PassNeeds) -> Iterator[Recording]:
    """Inside the context, forward passes record what providers need."""
    copied_layers = [name for name in needs.copied_layers if name not in needs.graph_layers]
    with ExitStack() as stack:
        if needs.double_backward:  # fused attention cannot be differentiated twice
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(disable_fused_attention(needs.fused_modules))
        yield stack.enter_context(
            record_outputs(
                network,
                needs.graph_layers,
                needs.reducers,
                copied_layers,
                build_graph=needs.input_graph,
            )
        )


def _compute_target_scores(
    logits: Tensor, probabilities: Tensor, column: TargetColumn
) -> TargetScores:
    """Scores and ranks of one class of each image: logits (B,K), classes (B,)."""
    columns = column.class_indices[:, None]
    own = logits.gather(1, columns)
    # Of equal logits the first class ranks first; a logit that is NaN ranks last.
    is_later = torch.arange(logits.shape[1], device=logits.device) >= columns
    ranks = logits.shape[1] - ((logits < own) | ((logits == own) & is_later)).sum(dim=1)
    return TargetScores(
        class_indices=column.class_indices,
        scores=probabilities.gather(1, columns)[:, 0],
        ranks=ranks,
        logit_weights=column.logit_weights,
        is_valid=column.is_valid,
        spec=column.spec,
    )


def _create_pass_state(
    context: _BatchContext,
    inputs: Tensor,
    logits: Tensor,
    recording: Recording,
    target: TargetScores,
) -> PassState:
    weights = target.logit_weights.repeat_interleave(context.layout.inputs_per_sample, dim=0)
    sources = recording.graph_outputs | ({"": inputs} if inputs.requires_grad else {})
    return PassState(
        network=context.model.network,
        inputs=inputs,
        logits=logits,
        recording=recording,
        logit_weights=weights,
        gradients=_compute_score_gradients((logits * weights).sum(), sources) if sources else {},
        to_probabilities=context.model.to_probabilities,
        chunk_size=context.options.chunk_size,
        report_progress=context.options.report_progress,
    )


def _compute_score_gradients(score: Tensor, sources: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradients of the sum of all scores; images do not mix, so they are each image's own."""
    gradients = compute_gradients(score, list(sources.values()), retain_graph=True)
    return dict(zip(sources, gradients, strict=True))


def _compute_maps(request: Request, state: PassState) -> list[MapBatch]:
    """A request's maps: one for each layer, or "fused" and the maps that it is made of."""
    if not request.method.per_layer:
        maps = {"fused": _refine(request, state, _compute_map(request, state, None))}
        for provider in list_providers(request.method):
            maps |= provider.collect_component_maps(state, request)
        return [create_map_batch(name, values) for name, values in maps.items()]
    return [m for layer in request.layers for m in _compute_layer_maps(request, state, layer)]


def _compute_layer_maps(request: Request, state: PassState, layer: Layer) -> list[MapBatch]:
    """A layer's map; if the method returns concepts (B,N,H,W), their maximum and then each."""
    values = _refine(request, state, _compute_map(request, state, layer))
    flags = _has_zero_gradient(request, state, layer)
    if request.method.returns != "concepts":
        return [create_map_batch(layer.name, values, flags)]
    prefix = f"{layer.name} " if len(request.layers) > 1 else ""
    concepts = enumerate(values.unbind(dim=1), start=1)
    return [
        create_map_batch(layer.name, values.amax(dim=1), flags),
        *(create_map_batch(f"{prefix}concept {number}", each) for number, each in concepts),
    ]


def _compute_map(request: Request, state: PassState, layer: Layer | None) -> Tensor:
    """Run the method on a layer, and return a map (B,H,W); concepts are maps (B,N,H,W)."""
    providers = list_providers(request.method)
    inputs = [provide_input(provider, state, request, layer) for provider in providers]
    with torch.no_grad():
        found = call_method(request, inputs, len(state.inputs))
        return request.to_map(found, state.logit_weights)


@torch.no_grad()
def _refine(request: Request, state: PassState, maps: Tensor) -> Tensor:
    """The maps (B,H,W) or concepts (B,N,H,W), refined if the request says so."""
    if request.refiner is None:
        return maps
    if maps.ndim == 3:
        return request.refiner.refine(state, maps)
    refined = [request.refiner.refine(state, each) for each in maps.unbind(dim=1)]
    return torch.stack(refined, dim=1)


def _has_zero_gradient(request: Request, state: PassState, layer: Layer) -> Tensor:
    """Whether all gradients of a layer's map are 0 (B V,); False if the method reads none."""
    if GRADIENTS not in list_providers(request.method):
        return torch.zeros(len(state.inputs), dtype=torch.bool, device=state.inputs.device)
    gradients: Tensor = provide_input(GRADIENTS, state, request, layer)
    return ~gradients.flatten(1).any(dim=1)
