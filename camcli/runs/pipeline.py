"""Read ahead, compute in batches, write behind. Knows neither colours nor formulas."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from camcli.core.boxes import find_boxes
from camcli.core.concurrency import PhaseTimer, open_thread_pool, prefetch_map
from camcli.core.errors import CamcliError, ImageError, OutputError, StorageError
from camcli.core.geometry import crop_visible_map
from camcli.core.types import Explanation, Failure, FileStamp, ImageSource, Result, Sample
from camcli.engine.acceleration.bn_folding import fold_batch_norms
from camcli.engine.acceleration.compilation import compile_network
from camcli.io.images import load_image
from camcli.io.transforms import compute_view, preprocess_crops, preprocess_image
from camcli.runs.batch import Outcome, compute_outcomes
from camcli.runs.config import RunConfig, RunState

if TYPE_CHECKING:
    from PIL.Image import Image

Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class RunCallbacks:
    """What is asked, and told, while a run goes on.

    `done(item)` says that an input needs no results, for it has them; `stop()` that no further
    batch is to be begun; the clock and the course are filled in.
    """

    state: RunState
    is_done: Callable[[ImageSource | Failure], bool] = lambda _item: False
    should_stop: Callable[[], bool] = lambda: False
    clock: PhaseTimer = field(default_factory=PhaseTimer)


def run_pipeline(
    config: RunConfig,
    sources: Iterable[ImageSource | Failure],
    finish_result: Callable[[Result], Out],
    callbacks: RunCallbacks | None = None,
) -> Iterator[Out | Failure]:
    """What `finish` makes of each request's Result, in the order of the inputs; or one Failed.

    Decoding, and `finish` (files written, maps scored), run in threads around the computation.
    All that is under way is finished before a stop. Raises StorageError when nothing can be
    written any more.
    """
    callbacks = callbacks or RunCallbacks(RunState.from_config(config))
    clock = callbacks.clock
    with ExitStack() as stack:
        readers, writers = (stack.enter_context(open_thread_pool(config.workers)) for _ in range(2))
        callbacks.state.folded_norm_count = stack.enter_context(
            fold_batch_norms(config.model, config.requests)
        )
        if config.is_compiled:
            stack.enter_context(compile_network(config.model, config.requests))
        seen = prefetch_map(
            readers,
            partial(_load_item, config),
            _iter_batch_items(config, sources, callbacks.is_done),
            config.read_ahead_count,
        )
        outcomes = _iter_outcomes(config, clock.iter_timed("reading", seen), callbacks)
        finished = prefetch_map(
            writers,
            partial(_finish_outcome, config, finish_result),
            outcomes,
            config.write_behind_count,
        )
        yield from clock.iter_timed("writing", finished)


@dataclass(frozen=True, slots=True)
class _BatchItem:
    """One input: the batch that it belongs to, and if it has its results from an earlier run."""

    batch_index: int
    source: ImageSource | Failure
    is_done: bool


@dataclass(frozen=True, slots=True)
class _LoadedItem:
    """One input that has been read."""

    item: _BatchItem
    sample: Sample | Failure


def _iter_batch_items(
    config: RunConfig,
    sources: Iterable[ImageSource | Failure],
    is_done: Callable[[ImageSource | Failure], bool],
) -> Iterator[_BatchItem]:
    """The inputs of batches that lack results of any of theirs.

    A batch is so many inputs in a row whether they can be read or not, and is computed as a whole:
    some kernels round otherwise in a batch of another size, and what is resumed must be what an
    unbroken run would have given, to the last bit.
    """
    size = config.batch_size
    for batch, members in groupby(enumerate(sources), key=lambda pair: pair[0] // size):
        items = [_BatchItem(batch, item, is_done(item)) for _, item in members]
        if not all(item.is_done for item in items):
            yield from items


def _load_item(config: RunConfig, item: _BatchItem) -> _LoadedItem:
    return _LoadedItem(item, load_image_sample(config, item.source))


def load_image_sample(config: RunConfig, source: ImageSource | Failure) -> Sample | Failure:
    """An image decoded and made inputs, or why it cannot be."""
    if isinstance(source, Failure):
        return source
    try:
        wanted = config.target.find_fixed_classes(source)
        stamp = find_file_stamp(source.path)
        again = partial(load_image, source.path)
        picture = again()
        view = compute_view(*picture.size, config.model.transform, config.fit)
        if config.crops:
            pixels = preprocess_crops(picture, config.crops, config.model.transform)
        else:
            pixels = preprocess_image(picture, view, config.model.transform)[None]
    except CamcliError as error:
        return _create_failure(source, error)
    look = (
        _create_image_getter(picture)
        if picture.width * picture.height <= config.max_kept_pixels
        else again
    )
    return Sample(source, look, pixels, view, wanted, stamp)


def _create_image_getter(image: Image) -> Callable[[], Image]:
    return lambda: image


def find_file_stamp(path: Path) -> FileStamp | None:
    """What tells a file from a later one of its name: its size, and when it was written."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def _create_failure(source: ImageSource, error: CamcliError) -> Failure:
    return Failure(source.name, str(source.path), str(error))


def _iter_outcomes(
    config: RunConfig, loaded_items: Iterable[_LoadedItem], callbacks: RunCallbacks
) -> Iterator[Outcome]:
    """Whole batches of whatever could be read; failures keep their place."""
    for _, members in groupby(loaded_items, key=lambda one: one.item.batch_index):
        batch = list(members)
        if callbacks.should_stop():
            return
        samples = [one.sample for one in batch if isinstance(one.sample, Sample)]
        if all(one.item.is_done for one in batch if isinstance(one.sample, Sample)):
            samples = []  # what is lacking is still not to be had
        with callbacks.clock.measure_phase("computing"):
            answers = iter(compute_outcomes(config, samples, callbacks.state))
        for one in batch:
            own = [one.sample] if isinstance(one.sample, Failure) else next(answers, [])
            yield from () if one.item.is_done else own


def _finish_outcome(
    config: RunConfig, finish_result: Callable[[Result], Out], outcome: Outcome
) -> Out | Failure:
    if isinstance(outcome, Failure):
        return outcome
    sample = outcome.sample
    try:
        at_hand = replace(sample, image_loader=_create_image_getter(sample.image))
        return finish_result(add_boxes(config, replace(outcome, sample=at_hand)))
    except StorageError:
        raise
    except (OutputError, ImageError) as error:
        return _create_failure(sample.source, OutputError(f"{outcome.method_name}: {error}"))


def add_boxes(config: RunConfig, result: Result) -> Result:
    """The result with the boxes that the job asks for."""
    return replace(
        result,
        explanations=tuple(_add_explanation_boxes(config, result, e) for e in result.explanations),
    )


def _add_explanation_boxes(
    config: RunConfig, result: Result, explanation: Explanation
) -> Explanation:
    if explanation.fused_map.status != "ok" or result.has_concepts:
        return explanation
    view = result.sample.view
    part = crop_visible_map(explanation.fused_map.normalized, view, config.model.input_size)
    # Where nothing is left, all that varied lay in the padding.
    fused = replace(
        explanation.fused_map, status="ok" if part.any() else "constant", visible_part=part
    )
    layers = tuple(
        fused if panel is explanation.fused_map else panel for panel in explanation.layer_maps
    )
    explanation = replace(explanation, fused_map=fused, layer_maps=layers)
    if fused.status != "ok":
        return explanation
    picture = result.sample.image
    return replace(
        explanation, boxes=find_boxes(part, result.threshold, config.box_selection, view, picture)
    )
