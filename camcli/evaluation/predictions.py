"""Where maps come from, a model or a folder of arrays: either way one Given an image and row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.boxes import BoxSelection, find_boxes
from camcli.core.concurrency import prefetch_map
from camcli.core.errors import ImageError, to_one_line
from camcli.core.geometry import (
    View,
    crop_visible_map,
    map_to_original,
    normalize_array,
    resize_map,
)
from camcli.core.types import Box, Failure, ImageSource, MapStatus, Result
from camcli.engine.request import Request
from camcli.engine.targets import Target
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.samples import EvaluationSample
from camcli.evaluation.metrics.scoring import CANVAS_SIDE
from camcli.io.images import load_image
from camcli.runs.config import RunConfig
from camcli.runs.pipeline import run_pipeline

T = TypeVar("T")
MAX_MAP_BYTES = 2**28  # bytes of a map


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One line of the table: a method on layers of a model, or maps of a folder, or a baseline."""

    model: str
    method: str
    layers: tuple[str, ...]
    threshold: str | float
    baseline: bool = False

    @property
    def name(self) -> str:
        """The method and its layers, of many the first and the last."""
        many = len(self.layers) > 2
        layers = f"{self.layers[0]}..{self.layers[-1]}" if many else ",".join(self.layers)
        return f"{self.method} {layers}".strip()


@dataclass(frozen=True, slots=True)
class Prediction:
    """A map of one image on the canvas (S, S) in [0, 1], and what is known besides.

    `boxes` are those of `camcli explain`, in pixels of the picture.
    """

    sample: EvaluationSample
    row: EvaluationRow
    image: Image.Image
    heatmap: NDArray[np.floating]
    status: MapStatus
    boxes: tuple[Box, ...]
    rank: int | None = None


PredictionHandler = Callable[[Prediction], T]
PredictionSource = Callable[
    [Sequence[EvaluationSample], Sequence[EvaluationRow], PredictionHandler[T]],
    Iterator[T | Problem],
]


def create_evaluation_rows(job: RunConfig) -> tuple[EvaluationRow, ...]:
    """A row for each of a job's requests."""
    return tuple(_create_row(job, request) for request in job.requests)


def _create_row(job: RunConfig, request: Request) -> EvaluationRow:
    layers = tuple(layer.name for layer in request.source_layers)
    return EvaluationRow(
        job.model.name, request.method.name, layers, job.find_threshold(request.method)
    )


def iter_model_predictions(
    job: RunConfig,
    samples: Sequence[EvaluationSample],
    rows: Sequence[EvaluationRow],
    handle: PredictionHandler[T],
) -> Iterator[T | Problem]:
    """What `use` makes of the maps that a job computes for the class that each truth is of."""
    found = [
        ImageSource(item.annotation.image_path, item.annotation.image_name, str(i))
        for i, item in enumerate(samples)
    ]
    target = Target(lambda source: (samples[int(source.output_stem)].class_index,))
    wanted = tuple(r for r in job.requests if _create_row(job, r) in rows)
    run = replace(job, target=target, requests=wanted)

    def finish(result: Result) -> T:
        return handle(
            _create_prediction(job, samples[int(result.sample.source.output_stem)], result)
        )

    for outcome in run_pipeline(run, found, finish):
        if isinstance(outcome, Failure):
            yield Problem("image cannot be read", outcome.name, outcome.reason)
        else:
            yield outcome


def _create_prediction(job: RunConfig, item: EvaluationSample, result: Result) -> Prediction:
    shown = result.explanations[0]
    view = result.sample.view
    row = EvaluationRow(job.model.name, result.method_name, result.layer_names, result.threshold)
    values = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.float32)
    if shown.fused_map.status == "ok":
        part = crop_visible_map(shown.fused_map.normalized, view, job.model.input_size)
        known = map_to_original(part, view.to_image_size(CANVAS_SIDE, CANVAS_SIDE))
        seen = np.isfinite(known)
        values[seen] = normalize_array(
            known[seen]
        )  # again: a map that is made smaller loses its peak
    status = shown.fused_map.status
    return Prediction(item, row, result.sample.image, values, status, shown.boxes, shown.rank)


def iter_folder_predictions(
    folder: Path,
    keep: BoxSelection,
    workers: int,
    samples: Sequence[EvaluationSample],
    rows: Sequence[EvaluationRow],
    handle: PredictionHandler[T],
) -> Iterator[T | Problem]:
    """What `use` makes of maps on disk: NAME.npy (2-D) or NAME.npz as `--save array` writes it.

    NAME is the image's with or without its suffix, or what no other image has at the end of its
    name. A map is min-maxed, and taken to show the whole image.
    """
    with ThreadPoolExecutor(workers) as pool:
        ends = Counter(
            end
            for image in {i.annotation.image_name for i in samples}
            for end in _list_path_endings(image)
        )
        load = partial(_load_prediction, folder, ends, keep, rows[0], handle)
        yield from prefetch_map(pool, load, samples, 4 * workers)


def _load_prediction(
    folder: Path,
    ends: Mapping[str, int],
    keep: BoxSelection,
    row: EvaluationRow,
    use: PredictionHandler[T],
    item: EvaluationSample,
) -> T | Problem:
    image = item.annotation.image_name
    file = _find_map_file(folder, image, ends)
    if file is None:
        return Problem("map is missing", image, f"no {image}.npy or .npz in {folder}")
    try:
        raw = _load_map_array(file, item.class_index)
    except Exception as error:  # noqa: BLE001 - a broken file leads to whatever it leads to
        return Problem("map cannot be read", image, f"{file.name}: {to_one_line(error)}")
    try:
        picture = _load_image_or_blank(item)
    except ImageError as error:
        return Problem("image cannot be read", image, str(error))
    values, status = _map_to_canvas(raw)
    view = View.from_whole_image(*picture.size)
    found: tuple[Box, ...] = ()
    if status == "ok":
        found = find_boxes(values.astype(np.float32), row.threshold, keep, view, picture)
    return use(Prediction(item, row, picture, values, status, found))


def _load_image_or_blank(item: EvaluationSample) -> Image.Image:
    """The image, or grey of its size: a map is scored without it, and only shown on it."""
    path, size = item.annotation.image_path, item.annotation.size
    if size is not None and not os.path.isfile(path):
        return Image.new("RGB", size, "grey")
    return load_image(path)


def _find_map_file(folder: Path, image: str, ends: Mapping[str, int]) -> Path | None:
    own = (end for end in _list_path_endings(image) if ends[end] == 1 or end == image)
    names = (name for end in own for name in (end, str(Path(end).with_suffix(""))))
    files = (folder / f"{name}{suffix}" for name in names for suffix in (".npy", ".npz"))
    return next((file for file in files if os.path.isfile(file)), None)


def _list_path_endings(image: str) -> list[str]:
    """`a/b/c.jpg`, `b/c.jpg`, `c.jpg`."""
    parts = Path(image).parts
    return [str(Path(*parts[i:])) for i in range(len(parts))]


def _load_map_array(file: Path, class_index: int) -> NDArray[np.generic]:
    """The 2-D map in a file. Pickled objects are refused by numpy itself."""
    if file.stat().st_size > MAX_MAP_BYTES:
        raise ValueError("larger than any map")
    with file.open("rb") as opened:
        loaded = np.load(opened, allow_pickle=False)
        values = loaded if isinstance(loaded, np.ndarray) else _read_fused_map(loaded, class_index)
    if values.ndim != 2 or min(values.shape) < 1 or values.dtype.kind not in "fiub":
        raise ValueError(f"not a 2-D array of numbers but {values.dtype} {values.shape}")
    return values


def _read_fused_map(arrays: Any, class_index: int) -> NDArray[np.generic]:
    """The fused map of a class, as `--save array` names it."""
    name = f"{class_index}/fused"
    if name not in arrays.files:
        has = [key.removesuffix("/fused") for key in arrays.files if key.endswith("/fused")]
        told = f"it has {', '.join(has[:5]) or 'none'}"
        raise ValueError(f"no map of class {class_index}, {told}; explain with --target @boxes.csv")
    if arrays.zip.getinfo(f"{name}.npy").file_size > MAX_MAP_BYTES:
        raise ValueError("larger than any map")
    values: NDArray[np.generic] = arrays[name]
    return values


def _map_to_canvas(raw: NDArray[np.generic]) -> tuple[NDArray[np.floating], MapStatus]:
    """On the canvas and in [0, 1]; a map that is already both is left as it is."""
    blank = np.zeros((CANVAS_SIDE, CANVAS_SIDE), np.float32)
    if not np.isfinite(raw).all():
        return blank, "non_finite"
    values = raw.astype(np.float64) / max(1.0, np.abs(raw.astype(np.float64)).max())
    if values.shape != (CANVAS_SIDE, CANVAS_SIDE):
        values = resize_map(
            normalize_array(values).astype(np.float32), (CANVAS_SIDE, CANVAS_SIDE)
        ).astype(np.float64)
    values = normalize_array(values)
    return (values, "ok") if values.any() else (blank, "constant")
