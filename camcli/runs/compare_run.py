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
from camcli.io.jsonl import ResultsLog
from camcli.io.results import failure_to_json
from camcli.runs.comparison import (
    ComparisonRow,
    compare_methods,
    comparison_to_json,
    draw_comparison,
)

ComparisonLine = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CompareTask:
    """The methods and images to compare, and the output folder.

    Each picture has a column per method name and a row per model or choice of layers.
    `class_slugs` are the parts of a file name for each class.
    """

    method_names: Sequence[str]
    rows: Sequence[ComparisonRow]
    sources: Sequence[ImageSource | Failure]
    output: Path
    class_slugs: Sequence[str]


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
    explanations = found.timed_results[0].result.explanations
    slugs = [format_explanation_slug(shown, task.class_slugs) for shown in explanations]
    stem = shorten_stem(found.source.output_stem)
    for target, slug in enumerate(list_distinct_names(slugs)):
        file = f"{stem}.{slug}.compare.jpg" if slug else f"{stem}.compare.jpg"
        picture = draw_comparison(found, target, task.method_names, task.rows)
        write_file(task.output / file, picture)
        line = comparison_to_json(found, target, task.method_names, task.rows) | {"file": file}
        log.append(line)
        yield line
