"""bf16 for the network, where it is faster and changes no answer. Knows nothing of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from camcli.engine.postprocess import Explained
from camcli.models.introspection.hooks import wrap_calls
from camcli.models.model import Model

ALIKE = 0.999  # the least correlation, by Pearson, of a map in bf16 with the same in fp32
ROUNDS = 5
WORTH = 1.1  # times as fast: what is less could be chance

Answers = Sequence[Sequence[Explained]]


@contextmanager
def lowered(model: Model, wanted: bool = True) -> Iterator[None]:
    """Inside the context the network computes in bf16, if that is wanted.

    By autocast, which leaves norms, softmax and losses in fp32; so are what gives the logits, for
    bf16 tells but 256 of them apart between two powers of two, and all arithmetic on maps.
    """
    with ExitStack() as stack:
        if wanted:
            kind = model.device.type
            half = lambda: torch.autocast(kind, torch.bfloat16)  # noqa: E731
            full = lambda: torch.autocast(kind, enabled=False)  # noqa: E731
            stack.enter_context(wrap_calls(model.network, half))
            for name in classifiers(model):
                classifier = model.network.get_submodule(name)
                stack.enter_context(wrap_calls(classifier, full, Tensor.float))
        yield


def classifiers(model: Model) -> list[str]:
    """Linear layers and convolutions with an output a class."""
    classes = len(model.labels.names)
    return [
        name
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == classes
    ]


def measured(
    model: Model, inputs: Tensor, run: Callable[[], Answers]
) -> tuple[Literal["fp32", "bf16"], str]:
    """Which precision to take, and why: bf16 if the network is faster with it and maps agree.

    Forward passes of both take turns on a batch; then `run` makes the batch's maps with each:
    they agree if all classes and statuses are the same and every map correlates at least ALIKE.
    """
    gain = _gain(model, inputs)
    if gain < WORTH:
        return "fp32", f"fp32: bf16 runs at {gain:.2f} of its speed here"
    whole = run()
    with lowered(model):
        half = run()
    least = alike(whole, half)
    if least >= ALIKE:
        return "bf16", f"bf16: {gain:.1f} times as fast as fp32; maps correlate {least:.4f} or more"
    return "fp32", f"fp32: bf16 changes classes or maps (a correlation of {least:.4f})"


@torch.no_grad()
def _gain(model: Model, inputs: Tensor) -> float:
    """How many times as fast as fp32 the network is in bf16.

    The best of several rounds: others are at work on this machine, and readers of this run.
    """
    slow, fast = [], []
    for _ in range(ROUNDS):
        slow.append(_seconds(model, inputs))
        with lowered(model):
            fast.append(_seconds(model, inputs))
    return min(slow) / min(fast)


def _seconds(model: Model, inputs: Tensor) -> float:
    began = time.perf_counter()
    model.network(inputs).cpu()  # the copy waits for the device
    return time.perf_counter() - began


def alike(whole: Answers, half: Answers) -> float:
    """The least correlation of any map with the same map in the other; 0 if answers differ."""
    pairs = [pair for rows in zip(whole, half, strict=True) for pair in zip(*rows, strict=True)]
    if not all(_same(one, other) for one, other in pairs):
        return 0.0
    return min((c for one, other in pairs for c in _correlations(one, other)), default=1.0)


def _same(one: Explained, other: Explained) -> bool:
    classes = torch.equal(one.chosen.classes, other.chosen.classes)
    return classes and torch.equal(one.fused.codes, other.fused.codes)


def _correlations(one: Explained, other: Explained) -> list[float]:
    """Pearson's correlation of each sample's fused maps, of those that are any."""
    a, b = (each.fused.values.flatten(1).double() for each in (one, other))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    found = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    return [c for c, code in zip(found.tolist(), one.fused.codes.tolist(), strict=True) if not code]
