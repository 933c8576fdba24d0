"""Compare methods on many images: one picture and one line of compare.jsonl per target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.core.types import Failure, ImageSource
from camcli.engine.providers.base import ProgressCallback
from camcli.io.files import (
    format_explanation_slug,
    list_distinct_names,
    shorten_stem,
    write_file,
)
from camcli.io.images import ODD_IMAGE_ERRORS, describe_image_error
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
from camcli.runs.pipeline import create_failure

ComparisonLine = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CompareTask:
    """The methods and images to compare, and the output folder.

    Each picture has a column per method name and a row per model or choice of layers.
    `class_slugs` are for each row the parts of a file name of its model's classes; the rows' models
    give the input size of `style`.
    """

    method_names: Sequence[str]
    rows: Sequence[ComparisonRow]
    sources: Sequence[ImageSource | Failure]
    output: Path
    class_slugs: Sequence[Sequence[str]]
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
    for target, stem in enumerate(_list_picture_stems(task, found)):
        try:
            files = _write_pictures(task, found, target, stem)
        except ODD_IMAGE_ERRORS as error:
            line = failure_to_json(create_failure(found.source, describe_image_error(error)))
            log.append(line)
            yield line
            return
        line = comparison_to_json(found, target, task.method_names, task.rows) | files
        log.append(line)
        yield line


def _write_pictures(
    task: CompareTask, comparison: Comparison, target: int, stem: str
) -> dict[str, str]:
    """Write the sheet and, if there are two maps, the correlations; return their names."""
    ending = task.style.image_format
    sheet = draw_comparison(comparison, target, task.method_names, task.rows, task.style)
    files = {"file": f"{stem}.compare.{ending}"}
    write_file(task.output / files["file"], encode_sheet(sheet, ending))
    matrix = draw_correlations(comparison, target, task.method_names, task.rows)
    if matrix is not None:
        files["correlation_file"] = f"{stem}.correlation.png"
        write_file(task.output / files["correlation_file"], encode_sheet(matrix, "png"))
    return files


def _list_picture_stems(task: CompareTask, comparison: Comparison) -> list[str]:
    """The start of the file names of each target."""
    first = comparison.timed_results[0]
    names = task.class_slugs[first.row_index]
    slugs = [format_explanation_slug(shown, names) for shown in first.result.explanations]
    stem = shorten_stem(comparison.source.output_stem)
    return [f"{stem}.{slug}" if slug else stem for slug in list_distinct_names(slugs)]
