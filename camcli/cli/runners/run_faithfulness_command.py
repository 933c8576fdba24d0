"""Run `camcli evaluate faithfulness`: print progress, problems, the table, and missed limits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial

from camcli.cli.console import is_jsonl_output, print_data, print_error, print_info, print_table
from camcli.cli.options import OutputFormat
from camcli.cli.run_texts import print_results_folder
from camcli.cli.runners.run_evaluate import print_problem, track_progress
from camcli.evaluation.faithfulness.faithfulness_options import MetricLimit
from camcli.evaluation.faithfulness.faithfulness_report import (
    FaithfulnessReport,
    format_faithfulness_table,
    row_to_json,
)
from camcli.evaluation.faithfulness.faithfulness_run import FaithfulnessConfig, run_faithfulness
from camcli.evaluation.reporter import EvaluationReporter


def run_faithfulness_command(
    config: FaithfulnessConfig, limits: Sequence[MetricLimit], output_format: OutputFormat
) -> int:
    """Evaluate and print; the exit status is 1 after a failed image or a missed limit."""
    is_quiet = output_format == "quiet"
    reporter = EvaluationReporter(
        track_progress=partial(track_progress, is_quiet=is_quiet),
        report_problem=partial(print_problem, Counter()),
        report_progress=lambda text: None if is_quiet else print_info(f"sanity: {text}"),
        report_result=partial(_print_report, config, output_format),
    )
    report = run_faithfulness(config, reporter)
    return int(report.has_failures | _print_missed_limits(report, limits))


def _print_report(
    config: FaithfulnessConfig, output_format: OutputFormat, report: FaithfulnessReport
) -> None:
    """Print the metrics on standard output, and what they mean for people."""
    if is_jsonl_output(output_format):
        for row in report.rows:
            print_data(json.dumps(row_to_json(row)))
    elif output_format != "quiet":
        print_table(format_faithfulness_table(report))
        print_info("against the best baseline, 95 %: ✓ better, · not clear, ✗ worse")
    for check in report.sanity.rows if report.sanity else ():
        print_info(f"sanity of {check.method}: {check.verdict}")
    for warning in report.warnings:
        print_info(f"note: {warning}")
    print_info(_format_summary(report))
    if config.output:
        shown = f"curves.{config.chart_format}" if config.plan.curves else None
        print_results_folder(config.output, shown)


def _format_summary(report: FaithfulnessReport) -> str:
    count, means = report.image_count, report.image_means
    parts = [f"{count} image{'s' * (count != 1)}, mean confidence {means.get('confidence', 0):.2f}"]
    if "correct" in means:
        parts.append(f"predicted class right on {means['correct']:.0%}")
    blank = sum(row.blank_map_count for row in report.rows if not row.row.baseline)
    if blank:
        parts.append(f"{blank} blank map{'s' * (blank != 1)} scored as they are")
    return "; ".join(parts)


def _print_missed_limits(report: FaithfulnessReport, limits: Sequence[MetricLimit]) -> bool:
    missed = [
        (row, limit, row.metrics.get(limit.metric))
        for row in report.rows
        for limit in limits
        if not row.row.baseline
        and limit.is_missed(
            row.metrics[limit.metric].value if limit.metric in row.metrics else None
        )
    ]
    for row, limit, found in missed:
        value = f"{found.value:.3f}" if found else "not measured"
        side = "under" if limit.is_minimum else "over"
        print_error(f"{row.row.name}: {limit.metric} is {value}, {side} {limit.value:g}")
    return bool(missed)
