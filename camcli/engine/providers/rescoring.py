"""Scores of altered inputs and of altered layer outputs, one chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from camcli.engine.providers.base import PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request

    AlterFunction = Callable[[int, Tensor], Tensor]
    AblationChunk = tuple[int, Tensor, Callable[[Tensor], Tensor]]


def provide_rescore(state: PassState, _request: Request, _layer: Layer) -> Callable[..., Tensor]:
    """A function `rescore(alter, wanted)` that gives the scores (B,N) of altered inputs.

    `alter(b, indices)` makes the altered inputs (n,3,H,W) of image b. Only those that are `wanted`
    (B,N) are computed; the others get 0. Scores are of probabilities, or with `probability=False`
    of logits.
    """
    import torch

    @torch.no_grad()
    def rescore(alter: AlterFunction, wanted: Tensor, *, probability: bool = True) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        for images, indices, logits in _iter_altered_logits(state, alter, wanted):
            answers = state.to_probabilities(logits) if probability else logits
            scores[images, indices] = (answers * state.logit_weights[images]).sum(dim=1)
        return scores

    return rescore


def provide_repredict(
    state: PassState, _request: Request, _layer: Layer
) -> Callable[[AlterFunction, Tensor], tuple[Tensor, Tensor]]:
    """A function `repredict(alter, wanted)`: probabilities (B,N,K) and scores (B,N).

    `alter` and `wanted` are as in `rescore`, and so are the scores.
    """
    import torch

    @torch.no_grad()
    def repredict(alter: AlterFunction, wanted: Tensor) -> tuple[Tensor, Tensor]:
        class_count = state.logit_weights.shape[1]
        answers = torch.zeros(*wanted.shape, class_count, device=wanted.device)
        for images, indices, logits in _iter_altered_logits(state, alter, wanted):
            answers[images, indices] = state.to_probabilities(logits)
        return answers, (answers * state.logit_weights[:, None]).sum(dim=2)

    return repredict


def _iter_altered_logits(
    state: PassState, alter: AlterFunction, wanted: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (images, indices, logits) for each chunk; a chunk may span several images."""
    import torch

    pairs, done = wanted.nonzero(), 0
    # Of nothing, split makes one empty chunk.
    for chunk in torch.split(pairs, state.chunk_size) if len(pairs) else ():
        images, indices = chunk.unbind(dim=1)
        altered = [alter(int(b), indices[images == b]) for b in torch.unique(images)]
        yield images, indices, state.network(torch.cat(altered)).float()
        done += len(chunk)
        state.report_progress(done, len(pairs))


def provide_ablate(state: PassState, _request: Request, layer: Layer) -> Callable[..., Tensor]:
    """A function `ablate(change, wanted)` that gives the scores (B,N) of changed layer outputs.

    `change(b, indices)` makes the changed outputs (n,C,h,w) of image b. Only those that are
    `wanted` (B,N) are computed; the others get 0. Scores are of logits, or with `probability=True`
    of probabilities.
    """
    import torch

    from camcli.models.introspection.layouts import map_to_output

    output = state.recording.get_output(layer.name).detach()

    @torch.no_grad()
    def ablate(change: AlterFunction, wanted: Tensor, *, probability: bool = False) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        total, done = int(wanted.sum()), 0
        for b, indices, run_from_layer in _iter_ablation_chunks(state, layer, wanted):
            changed = map_to_output(change(b, indices), output[b : b + 1], layer)
            logits = run_from_layer(changed).float()
            answers = state.to_probabilities(logits) if probability else logits
            scores[b, indices] = answers @ state.logit_weights[b]
            done += len(indices)
            state.report_progress(done, total)
        return scores

    return ablate


def _iter_ablation_chunks(
    state: PassState, layer: Layer, wanted: Tensor
) -> Iterator[AblationChunk]:
    """Yield (image, indices, function) for each chunk; a chunk is of one image.

    The function runs the network from the layer on. It is made anew for each image, so that the
    outputs before the layer are held for one image at a time.
    """
    from camcli.engine.partial_forward import create_partial_forward

    for b, row in enumerate(wanted):
        run_from_layer = create_partial_forward(state.network, layer.name, state.inputs[b : b + 1])
        for indices in row.nonzero().flatten().split(state.chunk_size):
            yield b, indices, run_from_layer


register_provider(Provider("rescore", provide_rescore, cost="N forwards", class_specific=True))
register_provider(Provider("repredict", provide_repredict, cost="N forwards", class_specific=True))
register_provider(
    Provider(
        "ablate",
        provide_ablate,
        cost="N forwards",
        class_specific=True,
        layer_specific=True,
        list_needs=lambda request: PassNeeds(
            copied_layers=tuple(layer.name for layer in request.layers)
        ),
    )
)
