"""bf16 for the network, where it is faster and changes no answer. Knows nothing of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from camcli.engine.postprocess import BatchExplanation
from camcli.models.introspection.hooks import wrap_calls
from camcli.models.model import Model

MIN_MAP_CORRELATION = (
    0.999  # the least correlation, by Pearson, of a map in bf16 with the same in fp32
)
TIMING_ROUNDS = 5
MIN_SPEEDUP = 1.1  # times as fast: what is less could be chance

RequestExplanations = Sequence[Sequence[BatchExplanation]]


@contextmanager
def use_bf16(model: Model, enabled: bool = True) -> Iterator[None]:
    """Inside the context the network computes in bf16, if that is wanted.

    By autocast, which leaves norms, softmax and losses in fp32; so are what gives the logits, for
    bf16 tells but 256 of them apart between two powers of two, and all arithmetic on maps.
    """
    with ExitStack() as stack:
        if enabled:
            kind = model.device.type
            half = lambda: torch.autocast(kind, torch.bfloat16)  # noqa: E731
            full = lambda: torch.autocast(kind, enabled=False)  # noqa: E731
            stack.enter_context(wrap_calls(model.network, half))
            for name in list_classifier_names(model):
                classifier = model.network.get_submodule(name)
                stack.enter_context(wrap_calls(classifier, full, Tensor.float))
        yield


def list_classifier_names(model: Model) -> list[str]:
    """Linear layers and convolutions with an output a class."""
    classes = len(model.labels.names)
    return [
        name
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == classes
    ]


def choose_precision(
    model: Model, inputs: Tensor, explain_inputs: Callable[[], RequestExplanations]
) -> tuple[Literal["fp32", "bf16"], str]:
    """Which precision to take, and why: bf16 if the network is faster with it and maps agree.

    Forward passes of both take turns on a batch; then `run` makes the batch's maps with each:
    they agree if all classes and statuses are the same and every map correlates at least ALIKE.
    """
    gain = _measure_speedup(model, inputs)
    if gain < MIN_SPEEDUP:
        return "fp32", f"fp32: bf16 runs at {gain:.2f} of its speed here"
    whole = explain_inputs()
    with use_bf16(model):
        half = explain_inputs()
    least = compute_least_correlation(whole, half)
    if least >= MIN_MAP_CORRELATION:
        return "bf16", f"bf16: {gain:.1f} times as fast as fp32; maps correlate {least:.4f} or more"
    return "fp32", f"fp32: bf16 changes classes or maps (a correlation of {least:.4f})"


@torch.no_grad()
def _measure_speedup(model: Model, inputs: Tensor) -> float:
    """How many times as fast as fp32 the network is in bf16.

    The best of several rounds: others are at work on this machine, and readers of this run.
    """
    slow, fast = [], []
    for _ in range(TIMING_ROUNDS):
        slow.append(_measure_seconds(model, inputs))
        with use_bf16(model):
            fast.append(_measure_seconds(model, inputs))
    return min(slow) / min(fast)


def _measure_seconds(model: Model, inputs: Tensor) -> float:
    began = time.perf_counter()
    model.network(inputs).cpu()  # the copy waits for the device
    return time.perf_counter() - began


def compute_least_correlation(
    fp32_explanations: RequestExplanations, bf16_explanations: RequestExplanations
) -> float:
    """The least correlation of any map with the same map in the other; 0 if answers differ."""
    pairs = [
        pair
        for rows in zip(fp32_explanations, bf16_explanations, strict=True)
        for pair in zip(*rows, strict=True)
    ]
    if not all(_has_same_answer(one, other) for one, other in pairs):
        return 0.0
    return min((c for one, other in pairs for c in _compute_correlations(one, other)), default=1.0)


def _has_same_answer(first: BatchExplanation, second: BatchExplanation) -> bool:
    classes = torch.equal(first.target_scores.class_indices, second.target_scores.class_indices)
    return classes and torch.equal(first.fused.status_codes, second.fused.status_codes)


def _compute_correlations(first: BatchExplanation, second: BatchExplanation) -> list[float]:
    """Pearson's correlation of each sample's fused maps, of those that are any."""
    a, b = (each.fused.values.flatten(1).double() for each in (first, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    found = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    return [
        c
        for c, code in zip(found.tolist(), first.fused.status_codes.tolist(), strict=True)
        if not code
    ]
