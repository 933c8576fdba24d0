"""bf16 for the network, if it is faster and changes no class and no map."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from camcli.engine.postprocess import BatchExplanation
from camcli.models.introspection.hooks import wrap_calls
from camcli.models.model import Model

MIN_MAP_CORRELATION = 0.999  # Pearson's, of a map in bf16 with the same map in fp32
TIMING_ROUNDS = 5
MIN_SPEEDUP = 1.1  # a smaller speed-up could be chance

RequestExplanations = Sequence[Sequence[BatchExplanation]]


@contextmanager
def use_bf16(model: Model, enabled: bool = True) -> Iterator[None]:
    """Inside the context, the network computes in bf16 if that is enabled.

    Autocast leaves norms and softmax in fp32. The classifier stays in fp32 too, because bf16 has
    only 128 values between two powers of two, which makes logits equal. Maps are always computed in
    fp32.
    """
    with ExitStack() as stack:
        if enabled:
            kind = model.device.type
            use_half = partial(torch.autocast, kind, torch.bfloat16)
            use_full = partial(torch.autocast, kind, enabled=False)
            stack.enter_context(wrap_calls(model.network, use_half))
            for name in list_classifier_names(model):
                classifier = model.network.get_submodule(name)
                stack.enter_context(wrap_calls(classifier, use_full, Tensor.float))
        yield


def list_classifier_names(model: Model) -> list[str]:
    """The names of linear layers and convolutions that have one output for each class."""
    classes = len(model.labels.names)
    return [
        name
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and len(module.weight) == classes
    ]


def choose_precision(
    model: Model, inputs: Tensor, explain_inputs: Callable[[], RequestExplanations]
) -> tuple[Literal["fp32", "bf16"], str]:
    """Choose a precision, and say why: bf16 if the network is faster with it and the maps agree.

    `explain_inputs` makes the maps of the batch, once in each precision. They agree if all classes
    and statuses are equal and every map correlates by at least MIN_MAP_CORRELATION.
    """
    speedup = _measure_speedup(model, inputs)
    if speedup < MIN_SPEEDUP:
        return "fp32", f"fp32: bf16 runs at {speedup:.2f} times the speed of fp32 here"
    fp32_explanations = explain_inputs()
    with use_bf16(model):
        bf16_explanations = explain_inputs()
    least = compute_least_correlation(fp32_explanations, bf16_explanations)
    if least >= MIN_MAP_CORRELATION:
        reason = f"{speedup:.1f} times as fast as fp32; maps correlate by {least:.4f} or more"
        return "bf16", f"bf16: {reason}"
    return "fp32", f"fp32: bf16 changes classes or maps (least correlation: {least:.4f})"


@torch.no_grad()
def _measure_speedup(model: Model, inputs: Tensor) -> float:
    """The speed of the network in bf16, in multiples of its speed in fp32.

    The best of several rounds counts, because other programs and this run's readers take time too.
    """
    fp32_seconds, bf16_seconds = [], []
    for _ in range(TIMING_ROUNDS):
        fp32_seconds.append(_measure_seconds(model, inputs))
        with use_bf16(model):
            bf16_seconds.append(_measure_seconds(model, inputs))
    return min(fp32_seconds) / min(bf16_seconds)


def _measure_seconds(model: Model, inputs: Tensor) -> float:
    start = time.perf_counter()
    model.network(inputs).cpu()  # the copy waits for the device
    return time.perf_counter() - start


def compute_least_correlation(
    fp32_explanations: RequestExplanations, bf16_explanations: RequestExplanations
) -> float:
    """The lowest correlation of a map in bf16 with the same map in fp32; 0 if classes differ."""
    if any(len(a) != len(b) for a, b in zip(fp32_explanations, bf16_explanations, strict=True)):
        return 0.0  # other numbers of classes
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
    """Pearson's correlation of the fused maps of each image whose status is ok."""
    a, b = (each.fused.values.flatten(1).double() for each in (first, second))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    found = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    return [
        c
        for c, code in zip(found.tolist(), first.fused.status_codes.tolist(), strict=True)
        if not code
    ]
