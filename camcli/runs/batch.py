"""From a batch of samples to their results; halved when memory runs out. Knows no files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from camcli.core.geometry import Float32Array
from camcli.core.maps import MAP_STATUSES
from camcli.core.types import Explanation, Failure, ImageMap, Result, Sample
from camcli.engine.acceleration.precision import choose_precision, use_bf16
from camcli.engine.explain import ExplainOptions, explain_batch
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.request import Request
from camcli.engine.targets import choose_target_classes
from camcli.runs.config import RunConfig, RunState

Outcome = Result | Failure
OUT_OF_MEMORY_MESSAGE = "not enough memory for this model, even for a single image"


def compute_outcomes(
    config: RunConfig, samples: Sequence[Sample], state: RunState
) -> list[list[Outcome]]:
    """What each request finds in each sample; no more at a time than fit into memory so far."""
    found: list[list[Outcome]] = []
    while len(found) < len(samples):
        part = samples[len(found) : len(found) + max(1, state.max_images_at_once)]
        found += _try_compute_outcomes(config, part, state)
    return found


def _try_compute_outcomes(
    config: RunConfig, samples: Sequence[Sample], state: RunState
) -> list[list[Outcome]]:
    """Of all these samples, or of none: then fewer fit than was thought."""
    chunk = max(1, min(state.max_images_at_once, config.batch_size))
    try:
        return _compute_batch_outcomes(config, samples, state, chunk)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # Past the handler, which held on to everything that the attempt had made.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(samples) == 1 and chunk == 1:
        return [
            [Failure(samples[0].source.name, str(samples[0].source.path), OUT_OF_MEMORY_MESSAGE)]
        ]
    state.max_images_at_once = (len(samples) if len(samples) > 1 else chunk) // 2
    state.notes.append(f"out of memory: {state.max_images_at_once} at a time from here on")
    return []


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The allocators of CPU and MPS raise a plain RuntimeError, in words of their own.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _compute_batch_outcomes(
    config: RunConfig, samples: Sequence[Sample], state: RunState, chunk_size: int
) -> list[list[Outcome]]:
    if state.precision is None:
        _settle_precision(config, samples, state, chunk_size)
    with use_bf16(config.model, state.precision == "bf16"):
        answers = _explain_samples(config, samples, chunk_size)
    columns = [_create_results(config, samples, of_request) for of_request in answers]
    return [list(row) for row in zip(*columns, strict=True)]


def _settle_precision(
    config: RunConfig, samples: Sequence[Sample], state: RunState, chunk_size: int
) -> None:
    """Take bf16 if it is faster on this batch, and its maps are the same."""
    quiet = replace(config, report_progress=lambda _done, _of: None)
    run = partial(_explain_samples, quiet, samples, chunk_size)
    state.precision, said = choose_precision(config.model, _samples_to_device(config, samples), run)
    state.notes.append(said)


def _explain_samples(
    config: RunConfig, samples: Sequence[Sample], chunk_size: int
) -> list[list[BatchExplanation]]:
    wanted = [sample.target_classes for sample in samples]
    choose = partial(choose_target_classes, fixed_classes=wanted, top_count=config.target.top_count)
    how = ExplainOptions(
        config.crops,
        config.smoothing,
        config.target.weight_logits,
        chunk_size,
        config.report_progress,
    )
    return explain_batch(
        config.model, _samples_to_device(config, samples), config.requests, choose, how
    )


def _samples_to_device(config: RunConfig, samples: Sequence[Sample]) -> Tensor:
    """The samples' inputs (B V,3,H,W) on the device, by a copy that need not be waited for."""
    inputs = torch.from_numpy(np.concatenate([sample.inputs for sample in samples]))
    if config.model.device.type == "cuda":
        inputs = inputs.pin_memory()
    return inputs.to(config.model.device, non_blocking=True)


def _create_results(
    config: RunConfig, samples: Sequence[Sample], explanations: Sequence[BatchExplanation]
) -> list[Result]:
    """Apart into images, a request at a time."""
    request = explanations[0].request
    split = [_split_explanation(config, one) for one in explanations]
    return [
        Result(
            sample,
            request.method.name,
            tuple(layer.name for layer in request.source_layers),
            tuple(column[b] for column in split),
            config.find_threshold(request.method),
            _create_panel_labels(request),
            _format_file_tag(config, request),
            request.head.kind if request.head else None,
            request.method.returns == "concepts",
        )
        for b, sample in enumerate(samples)
    ]


def _format_file_tag(config: RunConfig, request: Request) -> str:
    """What tells this request's files from those of the others: the method, then the layer."""
    if len(config.requests) == 1:
        return ""
    alike = sum(other.method is request.method for other in config.requests)
    name = re.sub(r"[^\w.+]+", "-", request.method.name)
    return name + (f".{request.source_layers[0].name}" if alike > 1 else "")


def _create_panel_labels(request: Request) -> dict[str, str]:
    stages = {la.name: f"stage{la.stage} ({la.name})" for la in request.source_layers if la.stage}
    return stages | {"fused": request.method.caption}


def _split_explanation(config: RunConfig, batch_explanation: BatchExplanation) -> list[Explanation]:
    names = config.model.labels.names
    # One layer is its own fusion: the same maps, and the same panels.
    every = {
        id(maps): maps
        for maps in (batch_explanation.fused, *batch_explanation.layers, *batch_explanation.parts)
    }
    chosen = batch_explanation.target_scores
    tensors = [t for maps in every.values() for t in (maps.values, maps.shown, maps.status_codes)]
    classes, scores, ranks, *rest = to_host_arrays(
        [chosen.class_indices, chosen.scores, chosen.ranks, *tensors]
    )
    panels = {
        key: _create_image_maps(maps.name, *rest[3 * n : 3 * n + 3])
        for n, (key, maps) in enumerate(every.items())
    }
    fused = panels[id(batch_explanation.fused)]
    layers, parts = (
        [panels[id(m)] for m in several]
        for several in (batch_explanation.layers, batch_explanation.parts)
    )
    rivals = _find_rival_classes(chosen.logit_weights)
    return [
        Explanation(
            int(classes[b]),
            names[int(classes[b])],
            float(scores[b]),
            int(ranks[b]),
            fused[b],
            tuple(column[b] for column in layers),
            tuple(column[b] for column in parts),
            rival_classes=tuple((k, names[k]) for k in rivals.get(b, ())),
        )
        for b in range(len(classes))
    ]


def _create_image_maps(
    name: str, values: Float32Array, shown: Float32Array, codes: Float32Array
) -> list[ImageMap]:
    status = [MAP_STATUSES[int(code)] for code in codes]
    return [ImageMap(name, *each) for each in zip(values, shown, status, strict=True)]


def _find_rival_classes(logit_weights: Tensor) -> dict[int, list[int]]:
    """The classes that each image's score speaks against."""
    found: dict[int, list[int]] = {}
    for b, k in (logit_weights < 0).nonzero().tolist():
        found.setdefault(b, []).append(k)
    return found


def to_host_arrays(tensors: Sequence[Tensor]) -> list[Float32Array]:
    """Tensors of any shapes as arrays of float32, off the device in one copy."""
    flat = torch.cat([t.detach().flatten().float() for t in tensors]).cpu().numpy()
    ends = np.cumsum([t.numel() for t in tensors])[:-1]
    return [p.reshape(t.shape) for p, t in zip(np.split(flat, ends), tensors, strict=True)]
