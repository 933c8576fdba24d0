"""Predictions from maps on disk: NumPy arrays of any program, or of `camcli explain`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.core.boxes import BoxSelection, find_boxes
from camcli.core.concurrency import prefetch_map
from camcli.core.errors import ImageError, to_one_line
from camcli.core.geometry import View, normalize_array, resize_map
from camcli.core.types import Box, MapStatus
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.map_files import MapFolder
from camcli.evaluation.metrics.scoring import CANVAS_SIDE
from camcli.evaluation.predictions import EvaluationRow, Prediction
from camcli.io.files import format_method_slug
from camcli.io.images import ODD_IMAGE_ERRORS, describe_image_error, load_image
from camcli.io.labels import Labels

T = TypeVar("T")
MAX_MAP_BYTES = 2**28


@dataclass(frozen=True, slots=True)
class FolderMaps:
    """The maps in a folder: NAME.npy (2-D), or NAME.METHOD.npz as `--save array` writes it.

    MapFolder says what NAME is. `method` is the name of the method to read, where an image has
    maps of several. A map is min-max normalized, and covers the whole image.
    """

    folder: Path
    labels: Labels
    threshold: str | float = 0.2
    box_selection: BoxSelection = "largest"
    workers: int = 2
    unknown_class: int | None = -1
    method: str | None = None

    @property
    def rows(self) -> tuple[EvaluationRow, ...]:
        """One row for all maps of the folder."""
        return (EvaluationRow(to_one_line(self.folder), self.method or "maps", (), self.threshold),)

    def iter_predictions(
        self,
        samples: Sequence[EvaluationSample],
        rows: Sequence[EvaluationRow],
        handle: Callable[[Prediction], T],
    ) -> Iterator[T | Problem]:
        """Load the map of each sample, and yield what `handle` returns."""
        images = {sample.annotation.image_name for sample in samples}
        slug = format_method_slug(self.method) if self.method else None
        files = MapFolder.from_images(self.folder, images, slug)

        def load(sample: EvaluationSample) -> T | Problem:
            found = self._load_prediction(sample, rows[0], files)
            return found if isinstance(found, Problem) else handle(found)

        with ThreadPoolExecutor(self.workers) as pool:
            yield from prefetch_map(pool, load, samples, 4 * self.workers)

    def _load_prediction(
        self, sample: EvaluationSample, row: EvaluationRow, files: MapFolder
    ) -> Prediction | Problem:
        name = sample.annotation.image_name
        file = files.find(name)
        if isinstance(file, Problem):
            return file
        try:
            raw = load_map_array(file, sample.class_index)
        except Exception as error:  # noqa: BLE001 - a broken file can raise anything
            return Problem("map cannot be read", name, f"{file.name}: {to_one_line(error)}")
        try:
            image = _load_image_or_blank(sample)
        except (ImageError, *ODD_IMAGE_ERRORS) as error:
            return Problem("image cannot be read", name, describe_image_error(error))
        heatmap, status = _map_to_canvas(raw)
        view = View.from_whole_image(*image.size)
        boxes: tuple[Box, ...] = ()
        if status == "ok":
            values = heatmap.astype(np.float32)
            boxes = find_boxes(values, row.threshold, self.box_selection, view, image)
        return Prediction(sample, row, image, heatmap, status, boxes)


def _load_image_or_blank(sample: EvaluationSample) -> Image.Image:
    """The image, or a grey one of its size: only the pictures show it, no metric needs it."""
    path, size = sample.annotation.image_path, sample.annotation.size
    if size is not None and not os.path.isfile(path):
        return Image.new("RGB", size, "grey")
    return load_image(path)


def load_map_array(file: Path, class_index: int) -> NDArray[np.generic]:
    """The 2-D map in a file. NumPy itself refuses pickled objects."""
    if file.stat().st_size > MAX_MAP_BYTES:
        raise ValueError("the file is too large for a map")
    with file.open("rb") as opened:
        loaded = np.load(opened, allow_pickle=False)
        values = loaded if isinstance(loaded, np.ndarray) else _read_fused_map(loaded, class_index)
    if values.ndim != 2 or min(values.shape) < 1 or values.dtype.kind not in "fiub":
        raise ValueError(f"expected a 2-D array of numbers, found {values.dtype} {values.shape}")
    return values


def _read_fused_map(arrays: Any, class_index: int) -> NDArray[np.generic]:
    """The fused map of a class, under the name that `--save array` gives it."""
    name = f"{class_index}/fused"
    if name not in arrays.files:
        has = [key.removesuffix("/fused") for key in arrays.files if key.endswith("/fused")]
        classes = ", ".join(has[:5]) or "none"
        raise ValueError(
            f"the file has no map of class {class_index} (its classes: {classes}); "
            "run `camcli explain --target @boxes.csv`"
        )
    if arrays.zip.getinfo(f"{name}.npy").file_size > MAX_MAP_BYTES:
        raise ValueError("the array is too large for a map")
    values: NDArray[np.generic] = arrays[name]
    return values


def _map_to_canvas(raw: NDArray[np.generic]) -> tuple[NDArray[np.floating], MapStatus]:
    """Resize a map to the canvas and normalize it to [0, 1], unless it has both already."""
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
