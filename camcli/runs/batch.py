"""Compute the results of a batch of samples, and halve the batch when memory runs out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from camcli.core.layer_names import format_layer_list
from camcli.core.types import ClassExplanation, Failure, Result, Sample
from camcli.engine.acceleration.precision import choose_precision, use_bf16
from camcli.engine.explain_batch import ExplainOptions, explain_batch
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.request import Request
from camcli.engine.target_rules import choose_target_columns
from camcli.io.files import format_method_slug
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.runs.counts import HIGHEST_CLASS
from camcli.runs.run_config import RunConfig, RunState
from camcli.runs.transfer import merge_targets, split_by_image, to_host

Outcome = Result | Failure
MAX_LAYER_TAG = 60  # characters of a file name
OUT_OF_MEMORY_MESSAGE = "not enough memory for this model, even for a single image"


@allow_gradients()
def compute_outcomes(
    config: RunConfig, samples: Sequence[Sample], state: RunState
) -> list[list[Outcome]]:
    """Return for each sample one result per request, or one failure.

    No more samples are computed at once than `state` allows; it shrinks when memory runs out.
    """
    outcomes: list[list[Outcome]] = []
    while len(outcomes) < len(samples):
        part = samples[len(outcomes) : len(outcomes) + max(1, state.max_images_at_once)]
        outcomes += _try_compute_outcomes(config, part, state)
    return outcomes


def _try_compute_outcomes(
    config: RunConfig, samples: Sequence[Sample], state: RunState
) -> list[list[Outcome]]:
    """Return the outcomes of all samples; none of them when they do not fit into memory."""
    chunk_size = max(1, min(state.max_images_at_once, config.batch_size))
    try:
        return _compute_batch_outcomes(config, samples, state, chunk_size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, because the exception keeps the tensors of the attempt alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(samples) == 1 and chunk_size == 1:
        source = samples[0].source
        return [[Failure(name=source.name, path=str(source.path), reason=OUT_OF_MEMORY_MESSAGE)]]
    state.halve_batch(len(samples) if len(samples) > 1 else chunk_size)
    return []


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Return whether an error means that a batch does not fit into memory."""
    # The CPU and MPS allocators raise a plain RuntimeError, each with its own message.
    messages = ("can't allocate memory", "not enough memory", "out of memory")
    known = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, known) or any(m in str(error) for m in messages)


def _compute_batch_outcomes(
    config: RunConfig, samples: Sequence[Sample], state: RunState, chunk_size: int
) -> list[list[Outcome]]:
    if state.precision is None:
        _measure_precision(config, samples, state, chunk_size)
    with use_bf16(config.model, state.precision == "bf16"):
        explanations = _explain_samples(config, samples, chunk_size)
    columns = [_create_outcomes(config, samples, of_request) for of_request in explanations]
    return [_keep_one_failure(row) for row in zip(*columns, strict=True)]


def _keep_one_failure(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """One outcome per request; of an image without a class a single failure."""
    return list(outcomes[:1] if isinstance(outcomes[0], Failure) else outcomes)


def _measure_precision(
    config: RunConfig, samples: Sequence[Sample], state: RunState, chunk_size: int
) -> None:
    """Choose bf16 if it is faster on this batch and gives the same maps."""
    quiet = replace(config, report_progress=lambda _done, _total: None)
    explain = partial(_explain_samples, quiet, samples, chunk_size)
    precision, reason = choose_precision(config.model, _samples_to_device(config, samples), explain)
    state.settle_precision(precision, reason)


def _explain_samples(
    config: RunConfig, samples: Sequence[Sample], chunk_size: int
) -> list[list[BatchExplanation]]:
    choose_columns = partial(
        choose_target_columns,
        config.target,
        [sample.target_classes for sample in samples],
        config.model.to_probabilities,
    )
    options = ExplainOptions(
        crops=config.crops,
        smoothing=config.smoothing,
        chunk_size=chunk_size,
        report_progress=config.report_progress,
    )
    inputs = _samples_to_device(config, samples)
    return explain_batch(config.model, inputs, config.requests, choose_columns, options)


def _samples_to_device(config: RunConfig, samples: Sequence[Sample]) -> Tensor:
    """Copy the samples' inputs (B V,3,H,W) to the device without waiting for the copy."""
    inputs = torch.from_numpy(np.concatenate([sample.inputs for sample in samples]))
    if config.model.device.type == "cuda":
        inputs = inputs.pin_memory()
    return inputs.to(config.model.device, non_blocking=True)


def _create_outcomes(
    config: RunConfig, samples: Sequence[Sample], explanations: Sequence[BatchExplanation]
) -> list[Outcome]:
    """Turn one request's explanations, one per target, into one outcome per sample."""
    request = explanations[0].request
    split = partial(
        split_by_image,
        class_names=config.model.labels.names,
        output_kind=config.model.output_kind,
    )
    columns = [to_host(column) for column in explanations]
    return [
        Result(
            sample=sample,
            method_name=request.method.name,
            layer_names=tuple(layer.name for layer in request.source_layers),
            explanations=tuple(of_image),
            threshold=config.find_threshold(request),
            map_captions=_create_map_captions(request),
            file_tag=_format_file_tag(config, request),
            head_kind=request.head.kind if request.head else None,
            has_concepts=request.method.returns == "concepts",
            is_pixel_level=request.is_pixel_level,
            is_class_specific=request.method.class_specific,
            refine=request.refiner.spec if request.refiner else "",
        )
        if of_image
        else _create_no_class_failure(sample, split(columns[0])[number])
        for number, (sample, of_image) in enumerate(
            zip(samples, merge_targets(columns, split), strict=True)
        )
    ]


def _create_no_class_failure(sample: Sample, best: ClassExplanation) -> Failure:
    """The failure of an image that no target is true of: `above:P` with no such class."""
    source = sample.source
    reason = (
        f"no class reaches the probability of --target {best.targets[0]}{HIGHEST_CLASS}{best.title}"
    )
    return Failure(name=source.name, path=str(source.path), reason=reason)


def _format_file_tag(config: RunConfig, request: Request) -> str:
    """Return the method, which every file name carries, and the layer where a method has several.

    So the files of two runs can lie in one folder.
    """
    same_method_count = sum(other.method is request.method for other in config.requests)
    name = format_method_slug(request.method.name)
    return name + (f".{_format_layer_tag(request)}" if same_method_count > 1 else "")


def _format_layer_tag(request: Request) -> str:
    """Return the layers in a file name: `blocks.5`, `stage1..5`; many names end in a digest."""
    layers = request.source_layers
    text = layers[0].name if len(layers) == 1 else format_layer_list(layers).replace(",", "+")
    if len(text) <= MAX_LAYER_TAG:
        return text
    return f"{text[:MAX_LAYER_TAG]}-{sha256(text.encode()).hexdigest()[:8]}"


def _create_map_captions(request: Request) -> dict[str, str]:
    stages = {la.name: f"stage{la.stage} ({la.name})" for la in request.source_layers if la.stage}
    return stages | {"fused": request.method.caption}
