"""Scores of altered inputs and of altered layer outputs, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import Alter, Pass
from camcli.engine.providers.partial_forward import resumed
from camcli.engine.request import Request
from camcli.models.introspection.layers import map_to_output


def _rescore(seen: Pass, _request: Request, _layer: Layer) -> Callable[..., Tensor]:
    @torch.no_grad()
    def rescore(alter: Alter, wanted: Tensor, *, probability: bool = True) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        pairs, done = wanted.nonzero(), 0
        for some in torch.split(pairs, seen.chunk):  # full batches, of one image or of several
            b, which = some.unbind(dim=1)
            altered = torch.cat([alter(int(i), which[b == i]) for i in torch.unique(b)])
            logits = seen.network(altered).float()
            answers = seen.probabilities(logits) if probability else logits
            scores[b, which] = (answers * seen.score[b]).sum(dim=1)
            done += len(some)
            seen.tick(done, len(pairs))
        return scores

    return rescore


def _ablate(seen: Pass, _request: Request, layer: Layer) -> Callable[[Alter, Tensor], Tensor]:
    output = seen.recorded.get_output(layer.name).detach()

    def ablate(change: Alter, wanted: Tensor) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        for b in range(len(wanted)):
            one = slice(b, b + 1)
            with resumed(seen.network, layer.name, seen.inputs[one]) as run:

                def of(_: int, which: Tensor, b: int = b, run: Any = run) -> Tensor:
                    changed = change(b, which)
                    logits = run(map_to_output(changed, output[b : b + 1], layer)).float()
                    found: Tensor = logits @ seen.score[b]
                    return found

                scores[one] = _one_by_one(seen, of, wanted[one])
        return scores

    return ablate


def _one_by_one(seen: Pass, of: Alter, wanted: Tensor) -> Tensor:
    """Scores (B,N) of what is wanted of each image, a chunk at a time; 0 for the rest."""
    scores = torch.zeros(wanted.shape, device=wanted.device)
    total, done = int(wanted.sum()), 0
    with torch.no_grad():
        for b, row in enumerate(wanted):
            for which in row.nonzero().flatten().split(seen.chunk):
                scores[b, which] = of(b, which)
                done += len(which)
                seen.tick(done, total)
    return scores
