"""The range of the raw values of a run: the maps are computed once more, and not kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from camcli.core.types import Failure, ImageMap, ImageSource, Result
from camcli.io.value_ranges import Range, ValueRange
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunConfig

_Ranges = dict[tuple[str, str], Range]


def iter_measured_ranges(
    config: RunConfig, sources: Sequence[ImageSource | Failure]
) -> Iterator[ValueRange]:
    """Compute all maps; yield after each image the ranges so far, by method and map."""
    ranges: _Ranges = {}
    seen: set[str] = set()
    quick = replace(config, box_selection="largest")
    for outcome in run_pipeline(quick, sources, _find_ranges):
        if isinstance(outcome, Failure):
            yield ValueRange(ranges=ranges)
            continue
        path, own = outcome
        for key, found in own.items():
            ranges[key] = _join_ranges(ranges.get(key, found), found)
        if path not in seen:
            seen.add(path)
            yield ValueRange(ranges=ranges)


def _find_ranges(result: Result) -> tuple[str, _Ranges]:
    own: _Ranges = {}
    for shown in result.explanations:
        for image_map in (shown.fused_map, *shown.layer_maps, *shown.part_maps):
            if image_map.status == "ok":
                key = (result.method_name, image_map.name)
                found = _measure_map(image_map)
                own[key] = _join_ranges(own.get(key, found), found)
    return str(result.sample.source.path), own


def _measure_map(image_map: ImageMap) -> Range:
    return float(image_map.values.min()), float(image_map.values.max())


def _join_ranges(one: Range, other: Range) -> Range:
    return min(one[0], other[0]), max(one[1], other[1])
