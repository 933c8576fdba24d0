"""What a provider is, and the state of the forward pass that it works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.engine.request import Request
from camcli.models.introspection.hooks import Recording, TensorFunction
from camcli.models.model import Model

AlterFunction = Callable[[int, Tensor], Tensor]


ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class PassState:
    """One forward pass of a batch, seen from one score of each image.

    `score` (B,K) weighs the logits; `gradients` are the score's by each tap; `chunk` is how many
    altered inputs go through the network at a time, of which `tick(done, of)` is told.
    """

    network: nn.Module
    inputs: Tensor
    logits: Tensor
    recording: Recording
    logit_weights: Tensor
    gradients: Mapping[str, Tensor]
    to_probabilities: Callable[[Tensor], Tensor]
    chunk_size: int
    report_progress: ProgressCallback
    cache: dict[tuple[str, str], Any] = field(default_factory=dict)

    def sum_scores(self, logits: Tensor) -> Tensor:
        """The sum over images of their scores: samples do not mix, so gradients are each's own."""
        return (logits * self.logit_weights).sum()


@dataclass(frozen=True, slots=True)
class Provider:
    """How to have something: what the shared pass taps, copies and reads; what to make of it.

    `input_graph` asks for a graph that reaches back to the input itself, `twice` for attention in
    steps that can be differentiated twice.
    """

    provide: Callable[[PassState, Request, Layer], Any]
    list_graph_layers: Callable[[Request], Iterable[str]] = lambda _: ()
    list_copied_layers: Callable[[Request], Iterable[str]] = lambda _: ()
    find_reducers: Callable[[Request], Mapping[str, TensorFunction]] = lambda _: {}
    needs_input_graph: bool = False
    needs_double_backward: bool = False


@dataclass(frozen=True, slots=True)
class HandleFinder:
    """How something of a model is found, what needs it, and what to say where it is not there."""

    find: Callable[[Model], Any]
    input_names: tuple[str, ...]
    missing_message: str
