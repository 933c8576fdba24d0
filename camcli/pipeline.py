"""Read ahead, compute in batches, write behind. Knows neither colours nor formulas."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from camcli import images, targets
from camcli.assemble import Explained, Maps
from camcli.boxes import Keep, boxes
from camcli.errors import CamcliError, ImageError, OutputError
from camcli.explain import How, explain
from camcli.maps import visible
from camcli.methods import Method
from camcli.models import Model
from camcli.needs import Tick
from camcli.plan import Request
from camcli.records import Crops, Explanation, Failed, Fit, Panel, Result, Sample, Source
from camcli.smoothing import NONE, Smoothing
from camcli.targets import Target

In = TypeVar("In")
Out = TypeVar("Out")
Outcome = Result | Failed


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with every image of a run."""

    model: Model
    requests: tuple[Request, ...]
    target: Target
    fit: Fit = "squash"
    batch_size: int = 8
    workers: int = 2
    threshold: str | float | None = None
    keep: Keep = "largest"
    smoothing: Smoothing = NONE
    tick: Tick = lambda _done, _of: None

    def level(self, method: Method) -> str | float:
        """The threshold of a method's boxes: as asked, or the checkpoint's, or its own."""
        own = self.model.thresholds.get(method.name, method.threshold)
        return own if self.threshold is None else self.threshold

    @property
    def crops(self) -> Crops | None:
        """The several inputs that an image is cut into, if it is."""
        return images.ten_crops(self.model.size) if self.fit == "tencrop" else None


def run(
    job: Job, found: Iterable[Source | Failed], finish: Callable[[Result], Out]
) -> Iterator[Out | Failed]:
    """What `finish` makes of each request's Result, in the order of the inputs; or one Failed.

    Decoding, and `finish` (files written, maps scored), run in threads around the computation.
    """
    depth = job.batch_size + 2 * job.workers
    with ThreadPoolExecutor(job.workers) as readers, ThreadPoolExecutor(job.workers) as writers:
        samples = ahead(readers, partial(read, job), found, depth)
        outcomes = _compute(job, samples)
        yield from ahead(writers, partial(_finish, job, finish), outcomes, depth)


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], depth: int
) -> Iterator[Out]:
    """`map` that keeps up to `depth` items under way in threads, in order, and cancels on exit."""
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            while waiting and (waiting[0].done() or len(waiting) > depth):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def read(job: Job, item: Source | Failed) -> Sample | Failed:
    """An image decoded and made inputs, or why it cannot be."""
    if isinstance(item, Failed):
        return item
    try:
        wanted = job.target.fixed(item)
        picture = images.decode(item.path)
        view = images.place(*picture.size, job.model.transform, job.fit)
        if job.crops:
            pixels = images.read_crops(picture, job.crops, job.model.transform)
        else:
            pixels = images.preprocess(picture, view, job.model.transform)[None]
    except CamcliError as error:
        return _failed(item, error)
    return Sample(item, picture, pixels, view, wanted)


def _failed(source: Source, error: CamcliError) -> Failed:
    return Failed(source.name, str(source.path), str(error))


def _compute(job: Job, samples: Iterable[Sample | Failed]) -> Iterator[Outcome]:
    """Batches of whatever could be read; failures keep their place."""
    group: list[Sample | Failed] = []
    full = 0
    for sample in samples:
        group.append(sample)
        full += isinstance(sample, Sample)
        if full == job.batch_size:
            yield from _batch(job, group)
            group, full = [], 0
    yield from _batch(job, group)


def _batch(job: Job, group: Sequence[Sample | Failed]) -> Iterator[Outcome]:
    answers = iter(explain_samples(job, [s for s in group if isinstance(s, Sample)]))
    for item in group:
        if isinstance(item, Failed):
            yield item
        else:
            yield from next(answers)


def explain_samples(job: Job, samples: list[Sample]) -> list[list[Outcome]]:
    """The outcomes of each sample; a batch that does not fit into memory is halved."""
    if not samples:
        return []
    try:
        return _attempt(job, samples)
    except RuntimeError as error:
        if not _out_of_memory(error):
            raise
    if len(samples) == 1 and job.batch_size > 1:  # altered inputs go through in batches too
        return explain_samples(replace(job, batch_size=job.batch_size // 2), samples)
    if len(samples) == 1:
        reason = ImageError("not enough memory for this model, even for a single image")
        return [[_failed(samples[0].source, reason)]]
    half = len(samples) // 2
    return explain_samples(job, samples[:half]) + explain_samples(job, samples[half:])


def _out_of_memory(error: RuntimeError) -> bool:
    # The allocators of CPU and MPS raise a plain RuntimeError, in words of their own.
    words = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(w in str(error) for w in words)


def _attempt(job: Job, samples: list[Sample]) -> list[list[Outcome]]:
    inputs = torch.from_numpy(np.concatenate([sample.pixels for sample in samples]))
    wanted = [sample.wanted for sample in samples]
    choose = partial(targets.choose, wanted=wanted, ranked=job.target.ranked)
    how = How(job.crops, job.smoothing, job.target.weigh, job.batch_size, job.tick)
    answers = explain(job.model, inputs.to(job.model.device), job.requests, choose, how)
    columns = [_results(job, samples, of_request) for of_request in answers]
    return [list(row) for row in zip(*columns, strict=True)]


def _results(job: Job, samples: list[Sample], found: Sequence[Explained]) -> list[Result]:
    """Off the device, a request at a time, and apart into images."""
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
    return stages | {"fused": request.method.result}


def _split(job: Job, found: Explained) -> list[Explanation]:
    fused = _panels(found.fused)
    layers = [fused if maps is found.fused else _panels(maps) for maps in found.layers]
    parts = [_panels(maps) for maps in found.parts]
    chosen = found.chosen
    classes, scores, ranks = (t.tolist() for t in (chosen.classes, chosen.scores, chosen.ranks))
    rivals = [row.nonzero().flatten().tolist() for row in chosen.weights < 0]
    return [
        Explanation(
            classes[b],
            job.model.labels.names[classes[b]],
            scores[b],
            ranks[b],
            fused[b],
            tuple(panels[b] for panels in layers),
            tuple(panels[b] for panels in parts),
            against=tuple((k, job.model.labels.names[k]) for k in rivals[b]),
        )
        for b in range(len(classes))
    ]


def _panels(maps: Maps) -> list[Panel]:
    values, shown = maps.values.float().cpu().numpy(), maps.shown.float().cpu().numpy()
    return [Panel(maps.name, v, s, st) for v, s, st in zip(values, shown, maps.status, strict=True)]


def _finish(job: Job, finish: Callable[[Result], Out], outcome: Outcome) -> Out | Failed:
    if isinstance(outcome, Failed):
        return outcome
    try:
        return finish(boxed(job, outcome))
    except OutputError as error:
        return _failed(outcome.sample.source, OutputError(f"{outcome.method}: {error}"))


def boxed(job: Job, result: Result) -> Result:
    """The result with the boxes that the job asks for."""
    return replace(
        result, explanations=tuple(_with_boxes(job, result, e) for e in result.explanations)
    )


def _with_boxes(job: Job, result: Result, found: Explanation) -> Explanation:
    if found.fused.status != "ok" or result.concepts:
        return found
    view = result.sample.view
    part = visible(found.fused.shown, view, job.model.size)
    if not part.any():  # all that varied lay in the padding
        blank = replace(found.fused, status="constant")
        layers = tuple(blank if panel is found.fused else panel for panel in found.layers)
        return replace(found, fused=blank, layers=layers)
    return replace(
        found, boxes=boxes(part, result.threshold, job.keep, view, result.sample.picture)
    )
