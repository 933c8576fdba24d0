"""Prepare images for scoring: the input, the class, and every row's map at the input's size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from camcli.core.errors import to_one_line
from camcli.core.geometry import View
from camcli.core.maps import normalize_maps
from camcli.core.types import Failure, MapStatus, Result, Sample
from camcli.engine.request import Request
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.faithfulness.faithfulness_options import RANDOM_CAM, Blur
from camcli.evaluation.faithfulness.fills import create_fills
from camcli.evaluation.faithfulness.pixel_baselines import BASELINES
from camcli.evaluation.faithfulness.pixel_ranks import (
    create_tie_order,
    rank_pixels,
    resize_to_input,
)
from camcli.evaluation.faithfulness.scored_image import PixelMap, PreparedImage
from camcli.evaluation.map_files import MapFolder
from camcli.evaluation.predictions import EvaluationRow
from camcli.evaluation.stored_maps import load_map_array
from camcli.models.model import Model


class UnusableMapError(Exception):
    """A map that cannot be scored; the whole image is left out, so that rows stay paired."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class MapRows:
    """The rows of an evaluation, in order: methods, stored maps, baselines.

    `requests` are those of the methods, and of Random-CAM as the last one if it is a baseline.
    """

    model: Model
    requests: tuple[Request, ...]
    folders: tuple[MapFolder, ...] = ()
    baselines: tuple[str, ...] = ()
    seed: int = 0
    blur: Blur = field(default_factory=Blur)
    reads_true_class: bool = False

    @property
    def method_requests(self) -> tuple[Request, ...]:
        """The requests that are not baselines."""
        return self.requests[:-1] if RANDOM_CAM in self.baselines else self.requests

    @property
    def rows(self) -> list[EvaluationRow]:
        """One row per method, folder and baseline."""
        name = self.model.name
        methods = [
            EvaluationRow(name, r.method.name, tuple(layer.name for layer in r.source_layers))
            for r in self.method_requests
        ]
        stored = [EvaluationRow(name, to_one_line(maps.folder), ()) for maps in self.folders]
        baselines = [EvaluationRow(name, base, (), baseline=True) for base in self.baselines]
        return [*methods, *stored, *baselines]


def iter_prepared_images(
    map_rows: MapRows, outcomes: Iterable[Result | Failure]
) -> Iterator[PreparedImage | Problem]:
    """Yield each image once all its maps are there, or the problem that leaves it out."""
    for _, group in groupby(outcomes, key=_get_image_key):
        results = list(group)
        failure = next((item for item in results if isinstance(item, Failure)), None)
        if failure:
            yield Problem("image cannot be read", failure.name, failure.reason)
            continue
        try:
            yield _prepare_image(map_rows, [r for r in results if isinstance(r, Result)])
        except UnusableMapError as error:
            yield error.problem


def _get_image_key(outcome: Result | Failure) -> tuple[str, str]:
    source = outcome.sample.source if isinstance(outcome, Result) else outcome
    return source.name, str(source.path)


def _prepare_image(map_rows: MapRows, results: Sequence[Result]) -> PreparedImage:
    sample, model = results[0].sample, map_rows.model
    image = torch.from_numpy(sample.inputs[0])
    window = sample.view.compute_input_window(*model.input_size)
    class_index = results[0].explanations[0].class_index
    assert class_index is not None  # networks without classes are refused before
    maps = [_read_result_map(result) for result in results]
    random_cam = maps.pop() if RANDOM_CAM in map_rows.baselines else None
    maps += [_read_stored_map(folder, sample, class_index, model) for folder in map_rows.folders]
    for name in map_rows.baselines:
        create = BASELINES[name]
        found = create(image, sample.source.name, map_rows.seed) if create else random_cam
        assert found is not None
        maps.append(found)
    left, top, right, bottom = window
    order = create_tie_order(sample.source.name, (right - left) * (bottom - top), map_rows.seed)
    return PreparedImage(
        source=sample.source,
        image=image.to(model.device),
        class_index=class_index,
        window=window,
        fills=create_fills(image.to(model.device), model.transform, map_rows.blur, map_rows.seed),
        pixel_maps=[
            _create_pixel_map(row, values, model.input_size, window, order)
            for row, values in zip(map_rows.rows, maps, strict=True)
        ],
        true_class=class_index if map_rows.reads_true_class else None,
    )


def _read_result_map(result: Result) -> Tensor:
    fused = result.explanations[0].fused_map
    if fused.status == "non_finite":
        detail = f"{result.method_name}: NaN or infinity"
        raise UnusableMapError(Problem("map is not finite", result.sample.source.name, detail))
    return torch.from_numpy(fused.values)


def _read_stored_map(maps: MapFolder, sample: Sample, class_index: int, model: Model) -> Tensor:
    name = sample.source.name
    file = maps.find(name)
    if isinstance(file, Problem):
        raise UnusableMapError(file)
    try:
        raw = load_map_array(file, class_index)
    except Exception as error:  # noqa: BLE001 - a broken file can raise anything
        detail = f"{file.name}: {to_one_line(error)}"
        raise UnusableMapError(Problem("map cannot be read", name, detail)) from None
    if not np.isfinite(raw).all():
        raise UnusableMapError(Problem("map is not finite", name, f"{file}: NaN or infinity"))
    return _crop_to_view(raw, sample.view, model.input_size)


def _crop_to_view(raw: NDArray[np.generic], view: View, size: tuple[int, int]) -> Tensor:
    """Bring the map of a whole image to the input: the part in view, zeros elsewhere."""
    values = raw.astype(np.float64)
    largest = float(np.abs(values).max())  # of other programs' numbers, beyond float32 perhaps
    scaled = (values / largest if largest > 1e30 else values).astype(np.float32)
    left, top, right, bottom = view.visible_rectangle
    x0, y0, x1, y1 = view.compute_input_window(*size)
    shows_all = (right - left, bottom - top) == view.image_size
    if shows_all and (y1 - y0, x1 - x0) == size:
        return torch.from_numpy(scaled)
    x, y = raw.shape[1] / view.image_width, raw.shape[0] / view.image_height
    part = Image.fromarray(scaled).resize(
        (x1 - x0, y1 - y0), Image.Resampling.BILINEAR, (left * x, top * y, right * x, bottom * y)
    )
    placed = torch.zeros(size)
    placed[y0:y1, x0:x1] = torch.from_numpy(np.array(part, np.float32))
    return placed


def _create_pixel_map(
    row: EvaluationRow,
    raw: Tensor,
    size: tuple[int, int],
    window: tuple[int, int, int, int],
    tie_order: NDArray[np.int64],
) -> PixelMap:
    values = resize_to_input(raw, size)
    left, top, right, bottom = window
    mask = torch.zeros(size)
    mask[top:bottom, left:right] = normalize_maps(values[None, top:bottom, left:right])[0]
    status: MapStatus = "ok" if mask.any() else "constant"
    return PixelMap(row, values, mask, rank_pixels(values, window, tie_order), status)
