"""Compare several methods on one image: each method runs by itself and is timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camcli.core.correlation import rank_values
from camcli.core.errors import MethodError, UsageError
from camcli.core.geometry import Float32Array, crop_visible_map, resize_map
from camcli.core.types import Failure, ImageSource, Result
from camcli.engine.providers.base import ProgressCallback
from camcli.engine.providers.provider_registry import takes_layers
from camcli.engine.request import Request
from camcli.io.results import explanation_to_json, sample_to_json
from camcli.methods.registry import Method
from camcli.runs.batch import compute_outcomes
from camcli.runs.pipeline import add_boxes, load_image_sample
from camcli.runs.run_config import RunConfig, RunState

RANKING_GRID = (64, 64)  # every map is resized to this grid (H, W) before its cells are ranked


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One model with one choice of layers, and a run configuration for each method.

    A configuration is None where the method does not apply; `reason_by_method` says why. The
    labels are empty when all rows share the model or the layers.
    """

    model_label: str
    layers_label: str
    base_config: RunConfig
    configs: tuple[RunConfig | None, ...]
    reason_by_method: Mapping[str, str]

    @property
    def label(self) -> str:
        """The model and the layers, as far as they differ between rows."""
        return join_labels(self.model_label, self.layers_label)

    def select_columns(self, column_indices: Sequence[int]) -> ComparisonRow:
        """Keep only some of the methods."""
        return replace(self, configs=tuple(self.configs[c] for c in column_indices))


def create_comparison_row(
    model_label: str,
    layers_label: str,
    config: RunConfig,
    methods: Sequence[Method],
    plan_by_method: Mapping[str, tuple[Request, ...] | MethodError],
) -> ComparisonRow:
    """Give each method a configuration with its own plan; None where it has no plan.

    Raises UsageError for a plan with several maps.
    """
    if any(isinstance(plan, tuple) and len(plan) > 1 for plan in plan_by_method.values()):
        raise UsageError("one row of a comparison has one map of each method; name layers once")
    plans = [plan_by_method.get(method.name) for method in methods]
    return ComparisonRow(
        model_label=model_label,
        layers_label=layers_label,
        base_config=config,
        configs=tuple(
            replace(config, requests=plan) if isinstance(plan, tuple) else None for plan in plans
        ),
        reason_by_method={
            name: str(plan)
            for name, plan in plan_by_method.items()
            if isinstance(plan, MethodError)
        },
    )


@dataclass(frozen=True, slots=True)
class TimedResult:
    """The result of one method on one image, and its seconds without decoding the image."""

    row_index: int
    column_index: int
    result: Result
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All results for one image, and the rank correlations of their maps.

    `spearman` (T,N,N): for each of T targets the correlations between the N results; NaN where a
    map is blank.
    """

    source: ImageSource
    timed_results: tuple[TimedResult, ...]
    spearman: NDArray[np.float64]


def compare_methods(
    rows: Sequence[ComparisonRow],
    source: ImageSource | Failure,
    report_progress: ProgressCallback = lambda _done, _total: None,
) -> Comparison | Failure:
    """Run every method of every row on one image; a Failure if one of them fails."""
    if isinstance(source, Failure):
        return source
    timed_results: list[TimedResult] = []
    for row_index, row in enumerate(rows):
        found = _run_row(row, row_index, source, report_progress)
        if isinstance(found, Failure):
            return found
        timed_results += found
    timed_results = _align_targets(timed_results)
    sizes = [row.base_config.model.input_size for row in rows]
    targets = range(len(timed_results[0].result.explanations))
    spearman = [
        compute_spearman([_to_ranking_grid(t, target, sizes[t.row_index]) for t in timed_results])
        for target in targets
    ]
    return Comparison(source, tuple(timed_results), np.stack(spearman))


def _align_targets(timed_results: Sequence[TimedResult]) -> list[TimedResult]:
    """Give every result the same number of explanations, in the order of the targets.

    Models may predict different classes: where two targets name one class for a model, its map
    counts for both. Of `above:P` there are as many classes as every model has.
    """
    all_explanations = [t.result.explanations for t in timed_results]
    specs = dict.fromkeys(s for found in all_explanations for e in found for s in e.targets)
    if len(specs) < 2 and len({len(found) for found in all_explanations}) == 1:
        return list(timed_results)
    by_spec = [
        [[e for e in found if spec in e.targets] for found in all_explanations] for spec in specs
    ]
    rows = (row for lists in by_spec for row in zip(*lists, strict=False))
    aligned = {tuple(map(id, row)): row for row in rows}.values()
    return [
        replace(timed, result=replace(timed.result, explanations=own))
        for timed, own in zip(timed_results, zip(*aligned, strict=True), strict=True)
    ]


def _run_row(
    row: ComparisonRow, row_index: int, source: ImageSource, report_progress: ProgressCallback
) -> list[TimedResult] | Failure:
    columns = [(c, config) for c, config in enumerate(row.configs) if config is not None]
    if not columns:
        return []
    sample = load_image_sample(columns[0][1], source)
    if isinstance(sample, Failure):
        return sample
    timed_results = []
    for column_index, config in columns:
        visible = replace(config, report_progress=report_progress)
        start = time.perf_counter()
        (outcome,) = compute_outcomes(visible, [sample], RunState.from_config(config))[0]
        if isinstance(outcome, Failure):
            return outcome
        result = add_boxes(config, outcome)
        seconds = time.perf_counter() - start
        timed_results.append(TimedResult(row_index, column_index, result, seconds))
    return timed_results


def _to_ranking_grid(
    timed_result: TimedResult, target: int, input_size: tuple[int, int]
) -> Float32Array | None:
    fused = timed_result.result.explanations[target].fused_map
    if fused.status != "ok":
        return None
    visible = crop_visible_map(fused.normalized, timed_result.result.sample.view, input_size)
    return resize_map(visible, RANKING_GRID)


def compute_spearman(maps: Sequence[Float32Array | None]) -> NDArray[np.float64]:
    """Compute Spearman's rank correlation of each pair of maps.

    N maps of size RANKING_GRID -> (N,N); NaN for a map that is None or constant.
    """
    ranks = np.full((len(maps), RANKING_GRID[0] * RANKING_GRID[1]), np.nan)
    for n, values in enumerate(maps):
        if values is not None and np.ptp(values) > 0:
            centred = rank_values(values) - (ranks.shape[1] + 1) / 2
            ranks[n] = centred / np.linalg.norm(centred)
    correlations: NDArray[np.float64] = ranks @ ranks.T
    return correlations


def comparison_to_json(
    comparison: Comparison, target: int, method_names: Sequence[str], rows: Sequence[ComparisonRow]
) -> dict[str, Any]:
    """Return one line of compare.jsonl."""
    return {
        **sample_to_json(comparison.timed_results[0].result.sample),
        "maps": [
            _map_to_json(t, target, method_names, rows[t.row_index])
            for t in comparison.timed_results
        ],
        "spearman": [
            [None if np.isnan(value) else round(float(value), 4) for value in row]
            for row in comparison.spearman[target]
        ],
    }


def _map_to_json(
    timed_result: TimedResult, target: int, method_names: Sequence[str], row: ComparisonRow
) -> dict[str, Any]:
    return {
        "method": method_names[timed_result.column_index],
        "row": format_row_label(timed_result, row),
        "model": row.base_config.model.name,
        "layers": list(timed_result.result.layer_names),
        "milliseconds": round(1000 * timed_result.seconds, 1),
        **explanation_to_json(timed_result.result.explanations[target]),
    }


def format_row_label(timed_result: TimedResult, row: ComparisonRow) -> str:
    """Return the row's label, without the layers if the method chooses its layers itself."""
    config = row.configs[timed_result.column_index]
    uses_row_layers = config is not None and takes_layers(config.requests[0].method)
    return join_labels(row.model_label, row.layers_label if uses_row_layers else "")


def join_labels(*labels: str) -> str:
    """Return the labels that are not empty, with dots between them."""
    return " · ".join(filter(None, labels))
