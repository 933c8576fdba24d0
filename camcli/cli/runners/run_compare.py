"""Run `camcli compare`: print each line or problem, then a table with one row per method."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean, median

from camcli.cli.console import (
    is_jsonl_output,
    print_data,
    print_info,
    print_table,
    show_progress,
)
from camcli.cli.options import OutputFormat
from camcli.cli.problem_lines import ProblemLines
from camcli.cli.run_texts import choose_first_picture, print_results_folder
from camcli.core.errors import to_one_line
from camcli.core.plurals import format_count
from camcli.core.types import STATUS_TEXTS
from camcli.io.file_names import COMPARISON_FILE
from camcli.io.jsonl import ResultsLog
from camcli.runs.compare_run import CompareTask, ComparisonLine, iter_comparison_lines
from camcli.runs.counts import find_failure_kind


def run_compare(
    task: CompareTask, overwrite: bool, fail_on_blank: bool, output_format: OutputFormat
) -> int:
    """Compare on every image, and print. Returns the exit status.

    With `fail_on_blank`, a map that shows no answer makes the status 1.
    """
    is_jsonl, is_quiet = is_jsonl_output(output_format), output_format == "quiet"
    statistics, problems = _Statistics(), ProblemLines()
    with (
        ResultsLog.open(task.output / COMPARISON_FILE, overwrite=overwrite) as log,
        show_progress("comparing", len(task.sources), is_quiet) as bar,
    ):
        for source in task.sources:
            for line in iter_comparison_lines(task, source, log, bar.update_inner):
                statistics.add_line(line)
                _print_problems(line, problems)
                if is_jsonl:
                    print_data(json.dumps(line))
            bar.advance()
    problems.print_repeats(to_one_line(task.output / COMPARISON_FILE))
    if statistics.milliseconds and not is_jsonl and not is_quiet:
        print_table(list(statistics.iter_table_rows()))
    print_info(statistics.format_summary())
    print_results_folder(task.output, choose_first_picture(statistics.first_files))
    counts = statistics.counts
    return int(bool(counts["failed"] or (fail_on_blank and counts["blank"])))


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Times and correlations of each method, and counts of pictures, failures and blank maps."""

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    correlations: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    first_files: dict[str, str] = field(default_factory=dict)

    def add_line(self, line: ComparisonLine) -> None:
        if line["status"] == "failed":
            self.counts["failed"] += 1
            return
        self.counts["pictures"] += 1
        self.counts["first frames"] += line.get("has_more_frames", False)
        self.first_files.setdefault("compare", line["file"])
        for n, (label, shown) in enumerate(_iter_labelled_maps(line)):
            self.counts["blank"] += shown["map_status"] != "ok"
            self.milliseconds[label].append(shown["milliseconds"])
            self.correlations[label] += [
                value for m, value in enumerate(line["spearman"][n]) if m != n and value is not None
            ]

    def iter_table_rows(self) -> Iterator[list[str]]:
        yield ["method", "ms an image", "Spearman with the others"]
        for label, times in self.milliseconds.items():
            values = self.correlations[label]
            yield [label, f"{median(times):.0f}", f"{mean(values):.2f}" if values else "-"]

    def format_summary(self) -> str:
        parts = [format_count(self.counts["pictures"], "picture")]
        parts += [f"{self.counts['failed']} failed"] if self.counts["failed"] else []
        parts += [format_count(self.counts["blank"], "blank map")] if self.counts["blank"] else []
        if self.counts["first frames"]:
            parts.append(f"only the first frame or page of {self.counts['first frames']}")
        return ", ".join(parts)


def _iter_labelled_maps(line: ComparisonLine) -> Iterator[tuple[str, ComparisonLine]]:
    for shown in line["maps"]:
        yield " ".join(filter(None, (shown["row"], shown["method"]))), shown


def _print_problems(line: ComparisonLine, problems: ProblemLines) -> None:
    if line["status"] == "failed":
        problems.print_problem(line["path"], line["error"], find_failure_kind(line["error"]))
        return
    for label, shown in _iter_labelled_maps(line):
        if shown["map_status"] != "ok":
            message = STATUS_TEXTS[shown["map_status"]].message
            problems.print_problem(line["path"], f"no map ({label}): {message}")
