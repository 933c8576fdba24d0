"""From a batch of samples to their results; halved when memory runs out. Knows no files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from camcli.core.geometry import Floats
from camcli.core.maps import STATUSES
from camcli.core.types import Explanation, Failed, Panel, Result, Sample
from camcli.engine import targets
from camcli.engine.acceleration.precision import lowered, measured
from camcli.engine.explain import How, explain
from camcli.engine.postprocess import Explained
from camcli.engine.request import Request
from camcli.runs.config import Course, Job

Outcome = Result | Failed
ALONE = "not enough memory for this model, even for a single image"


def outcomes(job: Job, samples: Sequence[Sample], course: Course) -> list[list[Outcome]]:
    """What each request finds in each sample; no more at a time than fit into memory so far."""
    found: list[list[Outcome]] = []
    while len(found) < len(samples):
        part = samples[len(found) : len(found) + max(1, course.fits)]
        found += _fitting(job, part, course)
    return found


def _fitting(job: Job, samples: Sequence[Sample], course: Course) -> list[list[Outcome]]:
    """Of all these samples, or of none: then fewer fit than was thought."""
    chunk = max(1, min(course.fits, job.batch_size))
    try:
        return _attempt(job, samples, course, chunk)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
    # Past the handler, which held on to everything that the attempt had made.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(samples) == 1 and chunk == 1:
        return [[Failed(samples[0].source.name, str(samples[0].source.path), ALONE)]]
    course.fits = (len(samples) if len(samples) > 1 else chunk) // 2
    course.notes.append(f"out of memory: {course.fits} at a time from here on")
    return []


def _out_of_memory(error: RuntimeError) -> bool:
    # The allocators of CPU and MPS raise a plain RuntimeError, in words of their own.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _attempt(
    job: Job, samples: Sequence[Sample], course: Course, chunk: int
) -> list[list[Outcome]]:
    if course.precision is None:
        _settle(job, samples, course, chunk)
    with lowered(job.model, course.precision == "bf16"):
        answers = _explained(job, samples, chunk)
    columns = [_results(job, samples, of_request) for of_request in answers]
    return [list(row) for row in zip(*columns, strict=True)]


def _settle(job: Job, samples: Sequence[Sample], course: Course, chunk: int) -> None:
    """Take bf16 if it is faster on this batch, and its maps are the same."""
    quiet = replace(job, tick=lambda _done, _of: None)
    run = partial(_explained, quiet, samples, chunk)
    course.precision, said = measured(job.model, _inputs(job, samples), run)
    course.notes.append(said)


def _explained(job: Job, samples: Sequence[Sample], chunk: int) -> list[list[Explained]]:
    wanted = [sample.wanted for sample in samples]
    choose = partial(targets.choose, wanted=wanted, ranked=job.target.ranked)
    how = How(job.crops, job.smoothing, job.target.weigh, chunk, job.tick)
    return explain(job.model, _inputs(job, samples), job.requests, choose, how)


def _inputs(job: Job, samples: Sequence[Sample]) -> Tensor:
    """The samples' inputs (B V,3,H,W) on the device, by a copy that need not be waited for."""
    inputs = torch.from_numpy(np.concatenate([sample.pixels for sample in samples]))
    if job.model.device.type == "cuda":
        inputs = inputs.pin_memory()
    return inputs.to(job.model.device, non_blocking=True)


def _results(job: Job, samples: Sequence[Sample], found: Sequence[Explained]) -> list[Result]:
    """Apart into images, a request at a time."""
    request = found[0].request
    split = [_split(job, one) for one in found]
    return [
        Result(
            sample,
            request.method.name,
            tuple(layer.name for layer in request.read),
            tuple(column[b] for column in split),
            job.level(request.method),
            _labels(request),
            _tag(job, request),
            request.head.kind if request.head else None,
            request.method.returns == "concepts",
        )
        for b, sample in enumerate(samples)
    ]


def _tag(job: Job, request: Request) -> str:
    """What tells this request's files from those of the others: the method, then the layer."""
    if len(job.requests) == 1:
        return ""
    alike = sum(other.method is request.method for other in job.requests)
    name = re.sub(r"[^\w.+]+", "-", request.method.name)
    return name + (f".{request.read[0].name}" if alike > 1 else "")


def _labels(request: Request) -> dict[str, str]:
    stages = {la.name: f"stage{la.stage} ({la.name})" for la in request.read if la.stage}
    return stages | {"fused": request.method.caption}


def _split(job: Job, found: Explained) -> list[Explanation]:
    names = job.model.labels.names
    # One layer is its own fusion: the same maps, and the same panels.
    every = {id(maps): maps for maps in (found.fused, *found.layers, *found.parts)}
    chosen = found.chosen
    tensors = [t for maps in every.values() for t in (maps.values, maps.shown, maps.codes)]
    classes, scores, ranks, *rest = fetched([chosen.classes, chosen.scores, chosen.ranks, *tensors])
    panels = {
        key: _panels(maps.name, *rest[3 * n : 3 * n + 3])
        for n, (key, maps) in enumerate(every.items())
    }
    fused = panels[id(found.fused)]
    layers, parts = ([panels[id(m)] for m in several] for several in (found.layers, found.parts))
    rivals = _rivals(chosen.weights)
    return [
        Explanation(
            int(classes[b]),
            names[int(classes[b])],
            float(scores[b]),
            int(ranks[b]),
            fused[b],
            tuple(column[b] for column in layers),
            tuple(column[b] for column in parts),
            against=tuple((k, names[k]) for k in rivals.get(b, ())),
        )
        for b in range(len(classes))
    ]


def _panels(name: str, values: Floats, shown: Floats, codes: Floats) -> list[Panel]:
    status = [STATUSES[int(code)] for code in codes]
    return [Panel(name, *each) for each in zip(values, shown, status, strict=True)]


def _rivals(weights: Tensor) -> dict[int, list[int]]:
    """The classes that each image's score speaks against."""
    found: dict[int, list[int]] = {}
    for b, k in (weights < 0).nonzero().tolist():
        found.setdefault(b, []).append(k)
    return found


def fetched(tensors: Sequence[Tensor]) -> list[Floats]:
    """Tensors of any shapes as arrays of float32, off the device in one copy."""
    flat = torch.cat([t.detach().flatten().float() for t in tensors]).cpu().numpy()
    ends = np.cumsum([t.numel() for t in tensors])[:-1]
    return [p.reshape(t.shape) for p, t in zip(np.split(flat, ends), tensors, strict=True)]
