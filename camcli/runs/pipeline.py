"""Read ahead, compute in batches, write behind. Knows neither colours nor formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from camcli.core.boxes import boxes
from camcli.core.concurrency import Clock, ahead, threads
from camcli.core.errors import CamcliError, ImageError, OutputError, StorageError
from camcli.core.geometry import visible
from camcli.core.types import Explanation, Failed, Result, Sample, Source, Stamp
from camcli.engine.acceleration.bn_folding import folded
from camcli.engine.acceleration.compilation import compiled
from camcli.io import images, transforms
from camcli.runs import batch as batches
from camcli.runs.batch import Outcome
from camcli.runs.config import Course, Job

if TYPE_CHECKING:
    from PIL.Image import Image

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Watch:
    """What is asked, and told, while a run goes on.

    `done(item)` says that an input needs no results, for it has them; `stop()` that no further
    batch is to be begun; the clock and the course are filled in.
    """

    course: Course
    done: Callable[[Source | Failed], bool] = lambda _item: False
    stop: Callable[[], bool] = lambda: False
    clock: Clock = field(default_factory=Clock)


def run(
    job: Job,
    found: Iterable[Source | Failed],
    finish: Callable[[Result], Out],
    watch: Watch | None = None,
) -> Iterator[Out | Failed]:
    """What `finish` makes of each request's Result, in the order of the inputs; or one Failed.

    Decoding, and `finish` (files written, maps scored), run in threads around the computation.
    All that is under way is finished before a stop. Raises StorageError when nothing can be
    written any more.
    """
    watch = watch or Watch(Course.of(job))
    clock = watch.clock
    with ExitStack() as stack:
        readers, writers = (stack.enter_context(threads(job.workers)) for _ in range(2))
        watch.course.folded = stack.enter_context(folded(job.model, job.requests))
        if job.compiled:
            stack.enter_context(compiled(job.model, job.requests))
        seen = ahead(readers, partial(_seen, job), _batched(job, found, watch.done), job.ahead)
        outcomes = _compute(job, clock.over("reading", seen), watch)
        finished = ahead(writers, partial(_finish, job, finish), outcomes, job.behind)
        yield from clock.over("writing", finished)


@dataclass(frozen=True, slots=True)
class _Item:
    """One input: the batch that it belongs to, and if it has its results from an earlier run."""

    batch: int
    found: Source | Failed
    done: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """One input that has been read."""

    item: _Item
    sample: Sample | Failed


def _batched(
    job: Job, found: Iterable[Source | Failed], done: Callable[[Source | Failed], bool]
) -> Iterator[_Item]:
    """The inputs of batches that lack results of any of theirs.

    A batch is so many inputs in a row whether they can be read or not, and is computed as a whole:
    some kernels round otherwise in a batch of another size, and what is resumed must be what an
    unbroken run would have given, to the last bit.
    """
    size = job.batch_size
    for batch, members in groupby(enumerate(found), key=lambda pair: pair[0] // size):
        items = [_Item(batch, item, done(item)) for _, item in members]
        if not all(item.done for item in items):
            yield from items


def _seen(job: Job, item: _Item) -> _Seen:
    return _Seen(item, read(job, item.found))


def read(job: Job, item: Source | Failed) -> Sample | Failed:
    """An image decoded and made inputs, or why it cannot be."""
    if isinstance(item, Failed):
        return item
    try:
        wanted = job.target.fixed(item)
        stamp = stamped(item.path)
        again = partial(images.decode, item.path)
        picture = again()
        view = transforms.place(*picture.size, job.model.transform, job.fit)
        if job.crops:
            pixels = transforms.read_crops(picture, job.crops, job.model.transform)
        else:
            pixels = transforms.preprocess(picture, view, job.model.transform)[None]
    except CamcliError as error:
        return _failed(item, error)
    look = _kept(picture) if picture.width * picture.height <= job.largest else again
    return Sample(item, look, pixels, view, wanted, stamp)


def _kept(picture: Image) -> Callable[[], Image]:
    return lambda: picture


def stamped(path: Path) -> Stamp | None:
    """What tells a file from a later one of its name: its size, and when it was written."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _failed(source: Source, error: CamcliError) -> Failed:
    return Failed(source.name, str(source.path), str(error))


def _compute(job: Job, seen: Iterable[_Seen], watch: Watch) -> Iterator[Outcome]:
    """Whole batches of whatever could be read; failures keep their place."""
    for _, members in groupby(seen, key=lambda one: one.item.batch):
        batch = list(members)
        if watch.stop():
            return
        samples = [one.sample for one in batch if isinstance(one.sample, Sample)]
        if all(one.item.done for one in batch if isinstance(one.sample, Sample)):
            samples = []  # what is lacking is still not to be had
        with watch.clock.on("computing"):
            answers = iter(batches.outcomes(job, samples, watch.course))
        for one in batch:
            own = [one.sample] if isinstance(one.sample, Failed) else next(answers, [])
            yield from () if one.item.done else own


def _finish(job: Job, finish: Callable[[Result], Out], outcome: Outcome) -> Out | Failed:
    if isinstance(outcome, Failed):
        return outcome
    sample = outcome.sample
    try:
        at_hand = replace(sample, look=_kept(sample.picture))
        return finish(boxed(job, replace(outcome, sample=at_hand)))
    except StorageError:
        raise
    except (OutputError, ImageError) as error:
        return _failed(sample.source, OutputError(f"{outcome.method}: {error}"))


def boxed(job: Job, result: Result) -> Result:
    """The result with the boxes that the job asks for."""
    return replace(
        result, explanations=tuple(_with_boxes(job, result, e) for e in result.explanations)
    )


def _with_boxes(job: Job, result: Result, found: Explanation) -> Explanation:
    if found.fused.status != "ok" or result.concepts:
        return found
    view = result.sample.view
    part = visible(found.fused.shown, view, job.model.input_size)
    # Where nothing is left, all that varied lay in the padding.
    fused = replace(found.fused, status="ok" if part.any() else "constant", part=part)
    layers = tuple(fused if panel is found.fused else panel for panel in found.layers)
    found = replace(found, fused=fused, layers=layers)
    if fused.status != "ok":
        return found
    picture = result.sample.picture
    return replace(found, boxes=boxes(part, result.threshold, job.keep, view, picture))
