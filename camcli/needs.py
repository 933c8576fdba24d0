"""What methods need, gathered from one forward pass or by further ones. Knows no formulas.

Each need has what must be tapped or read while the network runs, and what to make of it after.
`camcli.methods` says what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli import heads
from camcli.attention import unfuse
from camcli.methods import NEEDS as COSTS
from camcli.plan import Request
from camcli.records import Layer
from camcli.replay import resumed
from camcli.survey import spatial, tokens
from camcli.taps import Reading, Recorded, Rule, record, rewired, slopes

Alter = Callable[[int, Tensor], Tensor]
Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward pass of a batch, seen from one score of each image.

    `score` (B,K) weighs the logits; `gradients` are the score's by each tap; `chunk` is how many
    altered inputs go through the network at a time, of which `tick(done, of)` is told.
    """

    network: nn.Module
    inputs: Tensor
    logits: Tensor
    recorded: Recorded
    score: Tensor
    gradients: Mapping[str, Tensor]
    probabilities: Callable[[Tensor], Tensor]
    chunk: int
    tick: Tick
    found: dict[tuple[str, str], Any] = field(default_factory=dict)

    def summed(self, logits: Tensor) -> Tensor:
        """The sum over images of their scores: samples do not mix, so gradients are each's own."""
        return (logits * self.score).sum()


@dataclass(frozen=True, slots=True)
class Need:
    """How to have something: what the shared pass taps, copies and reads; what to make of it.

    `input_graph` asks for a graph that reaches back to the input itself, `twice` for attention in
    steps that can be differentiated twice.
    """

    gather: Callable[[Pass, Request, Layer], Any]
    taps: Callable[[Request], Iterable[str]] = lambda _: ()
    copies: Callable[[Request], Iterable[str]] = lambda _: ()
    readings: Callable[[Request], Mapping[str, Reading]] = lambda _: {}
    input_graph: bool = False
    twice: bool = False


def gather(need: str, seen: Pass, request: Request, layer: Layer | None) -> Any:
    """A need of a method, had once for all methods that share it."""
    where = layer if layer and COSTS[need].of_layer else NOWHERE
    key = (need, where.name)
    if key not in seen.found:
        seen.found[key] = NEEDS[need].gather(seen, request, where)
    return seen.found[key]


NOWHERE = Layer("", "NCHW", 3, (0, 0))


def _layer_names(request: Request) -> Iterable[str]:
    return [layer.name for layer in request.layers]


def _activations(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    return spatial(seen.recorded.output(layer.name), layer).detach().float()


def _gradients(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    return spatial(seen.gradients[layer.name], layer).float()


def _curvature(seen: Pass, _request: Request, layer: Layer) -> Tensor:
    """H A by a second backward pass: the gradient of g . A with A held fixed in the product."""
    tap = seen.recorded.taps[layer.name]
    (slope,) = torch.autograd.grad(seen.summed(seen.logits), tap, create_graph=True)
    if not slope.requires_grad:  # the score is linear in this layer
        return torch.zeros_like(spatial(slope, layer))
    (found,) = torch.autograd.grad(
        slope, tap, tap.detach(), retain_graph=True, materialize_grads=True
    )
    return spatial(found, layer).float()


def _again(
    seen: Pass, inputs: Tensor, tap: str, rules: Mapping[str, Rule], unfused: Iterable[Any] = ()
) -> tuple[Tensor, Tensor]:
    """Another forward and backward pass: a layer's output, or the input's own, and its gradient."""
    with ExitStack() as stack:
        stack.enter_context(unfuse(tuple(unfused)))
        stack.enter_context(rewired(seen.network, rules))
        taps = [tap] if tap else []
        recorded = stack.enter_context(record(seen.network, taps, graph=True))
        source = inputs.detach().requires_grad_(not tap)
        score = seen.summed(seen.network(source))
        output = recorded.taps[tap] if tap else source
        (gradient,) = slopes(score, [output])
    return output.detach().float(), gradient.float()


def _differentiate(
    seen: Pass, _request: Request, layer: Layer
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def at(inputs: Tensor) -> tuple[Tensor, Tensor]:
        output, gradient = _again(seen, inputs, layer.name, {})
        return spatial(output, layer), spatial(gradient, layer)

    return at


def _slope(seen: Pass, _request: Request, _layer: Layer) -> Callable[[Tensor], Tensor]:
    return lambda inputs: _again(seen, inputs, "", {})[1]


def _guided(seen: Pass, request: Request, _layer: Layer) -> Tensor:
    return _again(seen, seen.inputs, "", request.guided or {})[1]


def _relevance(seen: Pass, request: Request, layer: Layer) -> Tensor:
    assert request.matrices is not None
    unfused = request.matrices.unfused
    output, gradient = _again(seen, seen.inputs, layer.name, request.lrp or {}, unfused)
    return spatial(output * gradient, layer)


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
    output = seen.recorded.output(layer.name).detach()

    def ablate(change: Alter, wanted: Tensor) -> Tensor:
        scores = torch.zeros(wanted.shape, device=wanted.device)
        for b in range(len(wanted)):
            one = slice(b, b + 1)
            with resumed(seen.network, layer.name, seen.inputs[one]) as run:

                def of(_: int, which: Tensor, b: int = b, run: Any = run) -> Tensor:
                    changed = change(b, which)
                    logits = run(tokens(changed, output[b : b + 1], layer)).float()
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


def _bias_terms(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    terms = [bias[:, None, None] * seen.gradients[n] for n, bias in (request.biases or {}).items()]
    return [term.float() for term in terms if term.shape[2:] != (1, 1)]


def _rows(seen: Pass, request: Request, _layer: Layer) -> Tensor:
    assert request.rows is not None
    return request.rows.stack(seen.recorded.readings)


def _matrix_names(request: Request) -> Iterable[str]:
    return request.matrices.names if request.matrices else ()


def _matrices(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    outputs = [seen.recorded.output(name).detach() for name in request.matrices.names]
    return request.matrices.filled(outputs, diagonal=1)


def _matrix_gradients(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    gradients = [seen.gradients[name] for name in request.matrices.names]
    return request.matrices.filled(gradients, diagonal=0)


def _block_gradients(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    """The score read after each block, by that block's attention: one block of backward each."""
    assert request.matrices is not None
    assert request.reader is not None
    found: list[Tensor] = []
    for name, block in zip(request.matrices.names, request.matrices.blocks, strict=True):
        read = request.reader(seen.recorded.taps[block.name].float())
        tap = seen.recorded.taps[name]
        found += torch.autograd.grad(seen.summed(read), tap, retain_graph=True)
    return request.matrices.filled(found, diagonal=0)


def _matrices_and_blocks(request: Request) -> Iterable[str]:
    blocks = request.matrices.blocks if request.matrices else ()
    return (*_matrix_names(request), *(block.name for block in blocks))


def _of_head(part: int, seen: Pass, request: Request, _layer: Layer) -> Tensor:
    """The semantic map, or its bias: both are had at once."""
    key = ("semantic and bias", "")
    if key not in seen.found:
        assert request.head is not None
        output = seen.recorded.output(request.head.layer.name)
        seen.found[key] = heads.semantic(request.head, output.detach(), seen.score)
    found: Tensor = seen.found[key][part]
    return found


def _head_layer(request: Request) -> Iterable[str]:
    return [request.head.layer.name] if request.head else []


NEEDS: Mapping[str, Need] = {
    "inputs": Need(lambda seen, _request, _layer: seen.inputs.detach()),
    "activations": Need(_activations, copies=_layer_names),
    "gradients": Need(_gradients, taps=_layer_names),
    "curvature": Need(_curvature, taps=_layer_names, twice=True),
    "relevance": Need(_relevance),
    "differentiate": Need(_differentiate),
    "ablate": Need(_ablate, copies=_layer_names),
    "rescore": Need(_rescore),
    "input_gradients": Need(lambda seen, _request, _layer: seen.gradients[""], input_graph=True),
    "slope": Need(_slope),
    "guided_gradients": Need(_guided),
    "bias_terms": Need(_bias_terms, taps=lambda request: request.biases or {}),
    "attention": Need(
        _rows, readings=lambda request: request.rows.readings if request.rows else {}
    ),
    "matrices": Need(_matrices, copies=_matrix_names),
    "matrix_gradients": Need(_matrix_gradients, taps=_matrix_names),
    "block_gradients": Need(_block_gradients, taps=_matrices_and_blocks),
    "semantic": Need(partial(_of_head, 0), copies=_head_layer),
    "class_bias": Need(partial(_of_head, 1), copies=_head_layer),
}


def hooked(requests: Sequence[Request]) -> set[str]:
    """The modules whose output is recorded, or changed."""
    names = {
        name
        for request in requests
        for need in (NEEDS[need] for need in request.method.needs)
        for kind in (need.taps, need.copies, need.readings)
        for name in kind(request)
    }
    rules = (rule for r in requests for rules in (r.guided, r.lrp) for rule in rules or ())
    return {name.partition("[")[0] for name in names.union(rules)}
