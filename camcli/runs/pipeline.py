"""Explain many images: read ahead, compute in batches, write behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from camcli.core.boxes import find_regions
from camcli.core.concurrency import open_thread_pool, prefetch_map
from camcli.core.errors import CamcliError, ImageError, OutputError, StorageError
from camcli.core.geometry import Float32Array, View, crop_visible_map
from camcli.core.types import ClassExplanation, Failure, FileStamp, ImageSource, Result, Sample
from camcli.engine.acceleration.bn_folding import fold_batch_norms
from camcli.io.bands import read_picture, read_pixels
from camcli.io.images import ODD_IMAGE_ERRORS, describe_image_error, take_turns_if_large
from camcli.io.transforms import compute_view, preprocess_crops, preprocess_image
from camcli.runs.batch import Outcome, compute_outcomes
from camcli.runs.run_config import RunConfig, RunState

if TYPE_CHECKING:
    from PIL.Image import Image

Out = TypeVar("Out")


def run_pipeline(
    config: RunConfig,
    sources: Iterable[ImageSource | Failure],
    finish_result: Callable[[Result], Out],
    state: RunState | None = None,
    *,
    done_paths: Set[str] = frozenset(),
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Out | Failure]:
    """Explain many images; yield `finish_result(result)` of each request, in input order.

    An image that fails yields one Failure. Threads decode images and call `finish_result` (which
    writes files or scores maps) while the next batch is computed. Images in `done_paths` have
    their results from an earlier run and yield nothing. When `should_stop()` becomes true, the
    pipeline begins no further batch and finishes the current one. `state` collects what the run
    learns. Raises StorageError when nothing can be written any more.
    """
    state = state or RunState.from_config(config)
    with ExitStack() as stack:
        readers, writers = (stack.enter_context(open_thread_pool(config.workers)) for _ in range(2))
        state.folded_norm_count = stack.enter_context(
            fold_batch_norms(config.model, config.requests)
        )
        if config.is_compiled:
            from camcli.engine.acceleration.compilation import compile_network  # takes a second

            stack.enter_context(compile_network(config.model, config.requests))
        loaded = prefetch_map(
            readers,
            partial(_load_item, config),
            _iter_batch_items(config, sources, done_paths),
            config.read_ahead_count,
        )
        batches = _iter_batches(state.timer.iter_timed("reading", loaded), should_stop)
        finished = prefetch_map(
            writers,
            partial(_finish_outcome, config, finish_result),
            _iter_outcomes(config, batches, state),
            config.write_behind_count,
        )
        yield from state.timer.iter_timed("writing", finished)


@dataclass(frozen=True, slots=True)
class _BatchItem:
    """One input, the number of its batch, and whether it has results from an earlier run."""

    batch_index: int
    source: ImageSource | Failure
    is_done: bool


@dataclass(frozen=True, slots=True)
class _LoadedItem:
    """One input after reading."""

    batch_index: int
    sample: Sample | Failure
    is_done: bool


def _iter_batch_items(
    config: RunConfig, sources: Iterable[ImageSource | Failure], done_paths: Set[str]
) -> Iterator[_BatchItem]:
    """Yield the inputs of every batch in which at least one input has no result.

    A batch is `batch_size` inputs in a row, readable or not, and is always computed as a whole.
    Some kernels round differently in a batch of another size, and a resumed run must give the
    same bits as an unbroken one.
    """
    size = config.batch_size
    for batch, members in groupby(enumerate(sources), key=lambda pair: pair[0] // size):
        items = [_BatchItem(batch, source, str(source.path) in done_paths) for _, source in members]
        if not all(item.is_done for item in items):
            yield from items


def _load_item(config: RunConfig, item: _BatchItem) -> _LoadedItem:
    return _LoadedItem(item.batch_index, load_image_sample(config, item.source), item.is_done)


def load_image_sample(config: RunConfig, source: ImageSource | Failure) -> Sample | Failure:
    """Decode and preprocess an image, or return a Failure."""
    if isinstance(source, Failure):
        return source
    try:
        return _load_sample(config, source)
    except (CamcliError, *ODD_IMAGE_ERRORS) as error:  # such as a row that is too long to resize
        return create_failure(source, describe_image_error(error))


def _load_sample(config: RunConfig, source: ImageSource) -> Sample:
    target_classes = config.target.find_fixed_classes(source)
    stamp = find_file_stamp(source.path)
    image = source.path if source.image is None else source.image
    wanted = (config.model.transform.channel_count, config.picture_bands, config.max_pixels)
    pixels = read_pixels(image, *wanted)
    picture = pixels.picture
    view = compute_view(*picture.size, config.model.transform, config.fit)
    is_kept = source.image is not None or picture.width * picture.height <= config.max_kept_pixels
    return Sample(
        source=source,
        image_loader=_create_image_getter(picture)
        if is_kept
        else partial(read_picture, image, *wanted),
        inputs=_preprocess(config, pixels.planes, view),
        view=view,
        target_classes=target_classes,
        file_stamp=stamp,
        has_more_frames=pixels.has_more_frames,
    )


def _preprocess(config: RunConfig, planes: Sequence[Image], view: View) -> Float32Array:
    """Return the inputs (V,C,H,W) of one image: V crops, or the image itself."""
    if config.crops:
        return preprocess_crops(planes, config.crops, config.model.transform)
    return preprocess_image(planes, view, config.model.transform)[None]


def _create_image_getter(image: Image) -> Callable[[], Image]:
    return lambda: image


def find_file_stamp(path: Path) -> FileStamp | None:
    """Return the size and modification time of a file; None if there is no such file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def create_failure(source: ImageSource, reason: str) -> Failure:
    """Return the failure of an image."""
    return Failure(name=source.name, path=str(source.path), reason=reason)


def _iter_batches(
    loaded_items: Iterable[_LoadedItem], should_stop: Callable[[], bool]
) -> Iterator[list[_LoadedItem]]:
    for _, members in groupby(loaded_items, key=lambda loaded: loaded.batch_index):
        batch = list(members)
        if should_stop():
            return
        yield batch


def _iter_outcomes(
    config: RunConfig, batches: Iterable[Sequence[_LoadedItem]], state: RunState
) -> Iterator[Outcome]:
    """Compute whole batches; failures keep their place, and images that are done yield nothing."""
    for batch in batches:
        samples = [loaded.sample for loaded in batch if isinstance(loaded.sample, Sample)]
        if all(loaded.is_done or isinstance(loaded.sample, Failure) for loaded in batch):
            samples = []  # only unreadable images have no result yet
        with state.timer.measure_phase("computing"):
            computed = iter(compute_outcomes(config, samples, state))
        for loaded in batch:
            own = [loaded.sample] if isinstance(loaded.sample, Failure) else next(computed, [])
            if not loaded.is_done:
                yield from own


def _finish_outcome(
    config: RunConfig, finish_result: Callable[[Result], Out], outcome: Outcome
) -> Out | Failure:
    if isinstance(outcome, Failure):
        return outcome
    sample = outcome.sample
    try:
        with take_turns_if_large(*sample.view.image_size):
            decoded = replace(sample, image_loader=_create_image_getter(sample.image))
            return finish_result(add_boxes(config, replace(outcome, sample=decoded)))
    except StorageError:
        raise
    except (OutputError, ImageError, *ODD_IMAGE_ERRORS) as error:
        reason = f"{outcome.method_name}: {describe_image_error(error)}"
        return create_failure(sample.source, reason)


def add_boxes(config: RunConfig, result: Result) -> Result:
    """Return the result with the boxes that the run asks for."""
    return replace(
        result,
        explanations=tuple(_add_explanation_boxes(config, result, e) for e in result.explanations),
    )


def _add_explanation_boxes(
    config: RunConfig, result: Result, explanation: ClassExplanation
) -> ClassExplanation:
    if explanation.fused_map.status != "ok" or result.has_concepts:
        return explanation
    view = result.sample.view
    visible = crop_visible_map(explanation.fused_map.normalized, view, config.model.input_size)
    # A visible part without values means that the map varies in the padding only.
    fused = replace(
        explanation.fused_map, status="ok" if visible.any() else "constant", visible_part=visible
    )
    layers = tuple(
        fused if maps is explanation.fused_map else maps for maps in explanation.layer_maps
    )
    explanation = replace(explanation, fused_map=fused, layer_maps=layers)
    if fused.status != "ok":
        return explanation
    boxes, region = find_regions(
        visible, result.threshold, config.box_selection, view, result.sample.image
    )
    return replace(explanation, boxes=boxes, region=region)
