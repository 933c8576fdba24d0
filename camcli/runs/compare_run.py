"""Compare methods on many images: one picture and one line of compare.jsonl per target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.core.types import Failure, ImageSource
from camcli.engine.providers.base import ProgressCallback
from camcli.io.files import format_explanation_slug, shorten_stem, write_file
from camcli.io.jsonl import ResultsLog
from camcli.io.pictures import encode_sheet
from camcli.io.results import failure_to_json
from camcli.io.writers import DrawingStyle
from camcli.runs.comparison import (
    Comparison,
    ComparisonRow,
    compare_methods,
    comparison_to_json,
)
from camcli.runs.comparison_sheet import draw_comparison, draw_correlations

ComparisonLine = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CompareTask:
    """The methods and images to compare, and the output folder.

    Each picture has a column per method name and a row per model or choice of layers.
    `class_slugs` are the parts of a file name for each class; the rows' models give the input size
    of `style`.
    """

    method_names: Sequence[str]
    rows: Sequence[ComparisonRow]
    sources: Sequence[ImageSource | Failure]
    output: Path
    class_slugs: Sequence[str]
    style: DrawingStyle


def iter_comparison_lines(
    task: CompareTask,
    source: ImageSource | Failure,
    log: ResultsLog,
    report_progress: ProgressCallback = lambda _done, _total: None,
) -> Iterator[ComparisonLine]:
    """Compare all methods on one image; yield each line once it and its picture are written.

    Raises OutputError.
    """
    found = compare_methods(task.rows, source, report_progress)
    if isinstance(found, Failure):
        line = failure_to_json(found)
        log.append(line)
        yield line
        return
    for target in range(len(found.spearman)):
        files = _write_pictures(task, found, target)
        line = comparison_to_json(found, target, task.method_names, task.rows) | files
        log.append(line)
        yield line


def _write_pictures(task: CompareTask, comparison: Comparison, target: int) -> dict[str, str]:
    """Write the sheet and, if there are two maps, the correlations; return their names."""
    stem = _format_picture_stem(task, comparison, target)
    ending = task.style.image_format
    sheet = draw_comparison(comparison, target, task.method_names, task.rows, task.style)
    files = {"file": f"{stem}.compare.{ending}"}
    write_file(task.output / files["file"], encode_sheet(sheet, ending))
    matrix = draw_correlations(comparison, target, task.method_names, task.rows)
    if matrix is not None:
        files["correlation_file"] = f"{stem}.correlation.png"
        write_file(task.output / files["correlation_file"], encode_sheet(matrix, "png"))
    return files


def _format_picture_stem(task: CompareTask, comparison: Comparison, target: int) -> str:
    shown = comparison.timed_results[0].result.explanations[target]
    slug = format_explanation_slug(shown, task.class_slugs)
    return f"{shorten_stem(comparison.source.output_stem)}.{slug}"
