"""Scores of altered inputs and of altered layer outputs, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import AlterFunction, PassState
from camcli.engine.providers.partial_forward import prepare_partial_forward
from camcli.engine.request import Request
from camcli.models.introspection.layouts import map_to_output


def provide_rescore(state: PassState, _request: Request, _layer: Layer) -> Callable[..., Tensor]:
    @torch.no_grad()
    def rescore(alter: AlterFunction, wanted: Tensor, *, probability: bool = True) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        pairs, done = wanted.nonzero(), 0
        for some in torch.split(
            pairs, state.chunk_size
        ):  # full batches, of one image or of several
            b, which = some.unbind(dim=1)
            altered = torch.cat([alter(int(i), which[b == i]) for i in torch.unique(b)])
            logits = state.network(altered).float()
            answers = state.to_probabilities(logits) if probability else logits
            scores[b, which] = (answers * state.logit_weights[b]).sum(dim=1)
            done += len(some)
            state.report_progress(done, len(pairs))
        return scores

    return rescore


def provide_ablate(
    state: PassState, _request: Request, layer: Layer
) -> Callable[[AlterFunction, Tensor], Tensor]:
    output = state.recording.get_output(layer.name).detach()

    def ablate(change: AlterFunction, wanted: Tensor) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        for b in range(len(wanted)):
            one = slice(b, b + 1)
            with prepare_partial_forward(state.network, layer.name, state.inputs[one]) as run:

                def score_chunk(_: int, which: Tensor, b: int = b, run: Any = run) -> Tensor:
                    changed = change(b, which)
                    logits = run(map_to_output(changed, output[b : b + 1], layer)).float()
                    found: Tensor = logits @ state.logit_weights[b]
                    return found

                scores[one] = _score_in_chunks(state, score_chunk, wanted[one])
        return scores

    return ablate


def _score_in_chunks(state: PassState, score_chunk: AlterFunction, wanted: Tensor) -> Tensor:
    """Scores (B,N) of what is wanted of each image, a chunk at a time; 0 for the rest."""
    scores = torch.zeros(wanted.shape, device=wanted.device)
    total, done = int(wanted.sum()), 0
    with torch.no_grad():
        for b, row in enumerate(wanted):
            for which in row.nonzero().flatten().split(state.chunk_size):
                scores[b, which] = score_chunk(b, which)
                done += len(which)
                state.report_progress(done, total)
    return scores
