"""Several methods on one image, each by itself and timed: side by side, and how alike they are.

Knows nothing of the command line or of files.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from camcli.core.errors import MethodError
from camcli.core.geometry import Float32Array, crop_visible_map, resize_map
from camcli.core.types import Explanation, Failure, ImageSource, Result
from camcli.engine.request import Request
from camcli.io.drawing import GridCell, compute_cell_size, draw_grid, draw_matrix, stack_images
from camcli.io.pictures import draw_explanation
from camcli.io.results import explanation_to_json, sample_to_json
from camcli.io.writers import DrawingStyle
from camcli.methods.registry import Method
from camcli.runs.batch import compute_outcomes
from camcli.runs.config import RunConfig, RunState
from camcli.runs.pipeline import add_boxes, load_image_sample

RANKING_GRID = (64, 64)  # cells at which maps of any size are ranked
IMAGES_PER_ROW = 8  # pictures a row where nothing asks for more


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One model on given layers, and each method's job in it; None where a method has no place.

    `of_model` and `of_layers` tell it from other rows, where there are; `refused` says why a method
    has no place, by its name.
    """

    model_label: str
    layers_label: str
    base_config: RunConfig
    configs: tuple[RunConfig | None, ...]
    reason_by_method: Mapping[str, str]

    @property
    def label(self) -> str:
        """What the row is of, in words."""
        return " · ".join(filter(None, (self.model_label, self.layers_label)))

    def select_columns(self, column_indices: Sequence[int]) -> ComparisonRow:
        """With some of the methods."""
        return replace(self, configs=tuple(self.configs[c] for c in column_indices))


def create_comparison_row(
    model_label: str,
    layers_label: str,
    config: RunConfig,
    methods: Sequence[Method],
    plan_by_method: Mapping[str, tuple[Request, ...] | MethodError],
) -> ComparisonRow:
    """Each method by itself, as it is planned under its name; where it is not there is none."""
    found = [plan_by_method.get(m.name) for m in methods]
    jobs = (replace(config, requests=own[:1]) if isinstance(own, tuple) else None for own in found)
    refused = {
        name: str(why) for name, why in plan_by_method.items() if isinstance(why, MethodError)
    }
    return ComparisonRow(model_label, layers_label, config, tuple(jobs), refused)


@dataclass(frozen=True, slots=True)
class TimedResult:
    """What one method found in an image, and the seconds that it took without reading it."""

    row_index: int
    column_index: int
    result: Result
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All looks at an image, and for each target how alike their maps are.

    `spearman` is (T,N,N) in the order of the looks; NaN where a map is blank.
    """

    source: ImageSource
    timed_results: tuple[TimedResult, ...]
    spearman: NDArray[np.float64]


def compare_methods(
    rows: Sequence[ComparisonRow], source: ImageSource | Failure
) -> Comparison | Failure:
    """Every method of every row on one image; Failed if any cannot be had of it."""
    if isinstance(source, Failure):
        return source
    looks = []
    for r, row in enumerate(rows):
        sample = None
        for c, job in enumerate(row.configs):
            if job is None:
                continue
            sample = sample or load_image_sample(job, source)
            if isinstance(sample, Failure):
                return sample
            began = time.perf_counter()
            (outcome,) = compute_outcomes(job, [sample], RunState.from_config(job))[0]
            if isinstance(outcome, Failure):
                return outcome
            looks.append(TimedResult(r, c, add_boxes(job, outcome), time.perf_counter() - began))
    targets = range(len(looks[0].result.explanations))
    sizes = [row.base_config.model.input_size for row in rows]
    alike = [
        compute_spearman([_to_ranking_grid(look, t, sizes[look.row_index]) for look in looks])
        for t in targets
    ]
    return Comparison(source, tuple(looks), np.stack(alike))


def _to_ranking_grid(
    timed_result: TimedResult, target: int, size: tuple[int, int]
) -> Float32Array | None:
    fused = timed_result.result.explanations[target].fused_map
    if fused.status != "ok":
        return None
    part = crop_visible_map(fused.normalized, timed_result.result.sample.view, size)
    return resize_map(part, RANKING_GRID)


def compute_spearman(maps: Sequence[Float32Array | None]) -> NDArray[np.float64]:
    """Rank correlation of each pair of maps: N maps -> (N,N); NaN with one that is blank."""
    ranks = np.full((len(maps), RANKING_GRID[0] * RANKING_GRID[1]), np.nan)
    for n, values in enumerate(maps):
        if values is not None and np.ptp(values) > 0:
            ranked = rankdata(values) - (ranks.shape[1] + 1) / 2
            ranks[n] = ranked / np.linalg.norm(ranked)
    alike: NDArray[np.float64] = ranks @ ranks.T
    return alike


def draw_comparison(
    comparison: Comparison, target: int, method_names: Sequence[str], rows: Sequence[ComparisonRow]
) -> bytes:
    """The image, every map with its milliseconds, and the matrix of correlations, as a JPEG."""
    first = comparison.timed_results[0].result
    small = first.sample.image.resize(compute_cell_size(*first.sample.image.size))
    placed: dict[tuple[int, int], GridCell] = {}
    for look in comparison.timed_results:
        size = rows[look.row_index].base_config.model.input_size
        shown = _draw_cell_overlay(look.result, look.result.explanations[target], small, size)
        label = f"{method_names[look.column_index]}  {1000 * look.seconds:.0f} ms"
        placed[look.row_index, look.column_index] = GridCell(label, shown)
    blank = GridCell("", Image.new("RGB", small.size, (255, 255, 255)))
    columns = range(len(method_names))
    table = [
        [
            _create_image_cell(comparison, r, row, target, small),
            *(placed.get((r, c), blank) for c in columns),
        ]
        for r, row in enumerate(rows)
    ]
    if len(rows) == 1:
        table = [table[0][n : n + IMAGES_PER_ROW] for n in range(0, len(table[0]), IMAGES_PER_ROW)]
    about = first.explanations[target]
    sheet = draw_grid(f"{about.class_label} {about.score:.2f}", table)
    labels = [
        " · ".join(
            filter(
                None,
                (_format_row_label(look, rows[look.row_index]), method_names[look.column_index]),
            )
        )
        for look in comparison.timed_results
    ]
    if len(labels) > 1:
        side = draw_matrix("Spearman's correlation", labels, comparison.spearman[target])
        sheet = stack_images(sheet, side)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _create_image_cell(
    comparison: Comparison, row_index: int, row: ComparisonRow, target: int, thumbnail: Image.Image
) -> GridCell:
    """The image, with what the row is of; and its class, for models may see different ones."""
    own = [
        look.result.explanations[target]
        for look in comparison.timed_results
        if look.row_index == row_index
    ]
    parts = (row.label, own[0].class_label if own and row.label else "")
    return GridCell(" · ".join(filter(None, parts)) or "image", thumbnail)


def _draw_cell_overlay(
    result: Result, explanation: Explanation, thumbnail: Image.Image, size: tuple[int, int]
) -> Image.Image:
    view = result.sample.view.to_image_size(*thumbnail.size)
    return draw_explanation(result, explanation, thumbnail, view, DrawingStyle(size))


def comparison_to_json(
    comparison: Comparison, target: int, method_names: Sequence[str], rows: Sequence[ComparisonRow]
) -> dict[str, Any]:
    """One line of compare.jsonl."""
    return {
        **sample_to_json(comparison.timed_results[0].result.sample),
        "maps": [
            _map_to_json(look, target, method_names, rows) for look in comparison.timed_results
        ],
        "spearman": [
            [None if np.isnan(value) else round(float(value), 4) for value in row]
            for row in comparison.spearman[target]
        ],
    }


def _map_to_json(
    timed_result: TimedResult,
    target: int,
    method_names: Sequence[str],
    rows: Sequence[ComparisonRow],
) -> dict[str, Any]:
    return {
        "method": method_names[timed_result.column_index],
        "row": _format_row_label(timed_result, rows[timed_result.row_index]),
        "model": rows[timed_result.row_index].base_config.model.name,
        "layers": list(timed_result.result.layer_names),
        "milliseconds": round(1000 * timed_result.seconds, 1),
        **explanation_to_json(timed_result.result.explanations[target]),
    }


def _format_row_label(timed_result: TimedResult, row: ComparisonRow) -> str:
    """What tells its row from the others: not the layers, where the method reads its own."""
    job = row.configs[timed_result.column_index]
    layered = job is not None and job.requests[0].method.per_layer
    return " · ".join(filter(None, (row.model_label, row.layers_label if layered else "")))
