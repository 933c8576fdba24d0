"""Run `camcli evaluate localization`: print progress, problems, the table, missed floors."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from camcli.cli.console import (
    is_jsonl_output,
    print_data,
    print_error,
    print_info,
    print_table,
    show_progress,
)
from camcli.cli.options import OutputFormat
from camcli.cli.run_texts import print_results_folder
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.localization import LocalizationConfig, run_localization
from camcli.evaluation.localization_report import (
    LocalizationReport,
    format_metrics_table,
    row_to_json,
)
from camcli.evaluation.predictions import MapSource
from camcli.evaluation.reporter import EvaluationReporter

MAX_PROBLEMS_PRINTED = 3  # of each kind; problems.csv lists all


def run_evaluation(
    config: LocalizationConfig,
    sources: Iterable[MapSource],
    floors: Mapping[str, float],
    output_format: OutputFormat,
) -> int:
    """Evaluate and print; the exit status is 1 after a failed image or a missed floor."""
    reporter = EvaluationReporter(
        track_progress=partial(track_progress, is_quiet=output_format == "quiet"),
        report_problem=partial(print_problem, Counter()),
        report_result=partial(_print_report, config, output_format),
    )
    report = run_localization(config, sources, reporter)
    return int(report.has_failures | _print_missed_floors(report, floors))


@contextmanager
def track_progress(total: int, *, is_quiet: bool) -> Iterator[Callable[[], None]]:
    """Show a bar that the yielded function moves on."""
    with show_progress("evaluating", total, is_quiet) as bar:
        yield bar.advance


def print_problem(counts: Counter[str], problem: Problem) -> None:
    """Print the first problems of each kind."""
    counts[problem.kind] += 1
    if counts[problem.kind] <= MAX_PROBLEMS_PRINTED:
        print_error(problem)


def _print_report(
    config: LocalizationConfig, output_format: OutputFormat, report: LocalizationReport
) -> None:
    """Print the metrics on standard output, and a summary for people."""
    if is_jsonl_output(output_format):
        for row in report.rows:
            print_data(json.dumps(row_to_json(row)))
    elif output_format != "quiet":
        print_table(format_metrics_table(report.rows))
    for kind, count in Counter(problem.kind for problem in report.problems).items():
        print_info(f"{count} x {kind}")
    count = report.image_count
    print_info(f"{count} image{'s' * (count != 1)}")
    if config.output:
        print_results_folder(config.output, f"thresholds.{config.chart_format}")


def _print_missed_floors(report: LocalizationReport, floors: Mapping[str, float]) -> bool:
    """Print each row that is below a floor; a metric that was not measured is below it."""
    missed = [
        (name, metric, row.metrics.get(metric))
        for name, row in zip(report.row_names, report.rows, strict=True)
        for metric, floor in floors.items()
        if not row.row.baseline and (metric not in row.metrics or row.metrics[metric].value < floor)
    ]
    for name, metric, found in missed:
        value = f"{found.value:.3f}" if found else "not measured"
        print_error(f"{name}: {metric} is {value}, under {floors[metric]:g}")
    return bool(missed)
