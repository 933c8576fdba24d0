"""What `camcli compare` writes and says: a picture and a line an image, and a table at the end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from camcli.cli.console import (
    ProgressReporter,
    is_jsonl_output,
    print_data,
    print_error,
    print_info,
    print_table,
    show_progress,
)
from camcli.cli.options import COMPARISON_FILE, OutputFormat
from camcli.core.errors import to_one_line
from camcli.core.types import STATUS_TEXTS, Failure, ImageSource
from camcli.io.files import format_explanation_slug, shorten_stem, write_file
from camcli.io.jsonl import ResultsLog
from camcli.io.results import failure_to_json
from camcli.runs.comparison import (
    ComparisonRow,
    compare_methods,
    comparison_to_json,
    draw_comparison,
)


@dataclass(frozen=True, slots=True)
class CompareRun:
    """The columns and rows of every picture, and what has been seen so far.

    `strict` says that a blank map counts as a failure: not so where methods were not named.
    """

    method_names: Sequence[str]
    rows: Sequence[ComparisonRow]
    output: Path
    class_slugs: Sequence[str]
    fail_on_blank: bool
    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    correlations: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    def run(
        self, sources: Sequence[ImageSource | Failure], overwrite: bool, output_format: OutputFormat
    ) -> int:
        """Compare on every image; the exit status."""
        machine = is_jsonl_output(output_format)
        with (
            ResultsLog.open(self.output / COMPARISON_FILE, overwrite=overwrite) as log,
            show_progress("comparing", len(sources), output_format == "quiet") as bar,
        ):
            rows = [_add_progress(row, bar) for row in self.rows]
            for item in sources:
                for line in self._iter_lines(rows, item):
                    log.append(line)
                    self._add_line(line)
                    if machine:
                        print_data(json.dumps(line))
                bar.advance()
        if not machine and output_format != "quiet" and self.milliseconds:
            print_table(list(self._iter_table_rows()))
        print_info(f"{self._format_summary()}; written to {to_one_line(self.output)}/")
        return int(bool(self.counts["failed"] or (self.fail_on_blank and self.counts["blank"])))

    def _iter_lines(
        self, rows: Sequence[ComparisonRow], item: ImageSource | Failure
    ) -> Iterator[dict[str, Any]]:
        """What is told of an image, a line a target, once its picture is written."""
        found = compare_methods(rows, item)
        if isinstance(found, Failure):
            yield failure_to_json(found)
            return
        for target in range(len(found.spearman)):
            shown = found.timed_results[0].result.explanations[target]
            stem = shorten_stem(found.source.output_stem)
            file = f"{stem}.{format_explanation_slug(shown, self.class_slugs)}.compare.jpg"
            write_file(
                self.output / file,
                draw_comparison(found, target, self.method_names, rows),
            )
            yield comparison_to_json(found, target, self.method_names, rows) | {"file": file}

    def _add_line(self, line: Mapping[str, Any]) -> None:
        if line["status"] == "failed":
            self.counts["failed"] += 1
            print_error(f"{line['path']}: {line['error']}")
            return
        self.counts["pictures"] += 1
        for n, shown in enumerate(line["maps"]):
            label = " ".join(filter(None, (shown["row"], shown["method"])))
            self.milliseconds[label].append(shown["milliseconds"])
            if shown["map_status"] != "ok":
                self.counts["blank"] += 1
                reason = STATUS_TEXTS[shown["map_status"]].message
                print_error(f"{line['path']}: no map ({label}): {reason}")
            others = [v for m, v in enumerate(line["spearman"][n]) if m != n and v is not None]
            self.correlations[label] += others

    def _iter_table_rows(self) -> Iterator[list[str]]:
        yield ["method", "ms an image", "Spearman with the others"]
        for label, times in self.milliseconds.items():
            alike = f"{mean(self.correlations[label]):.2f}" if self.correlations[label] else "-"
            yield [label, f"{median(times):.0f}", alike]

    def _format_summary(self) -> str:
        count = self.counts["pictures"]
        parts = [f"{count} picture{'s' * (count != 1)}"]
        parts += [f"{self.counts['failed']} failed"] if self.counts["failed"] else []
        blank = self.counts["blank"]
        parts += [f"{blank} blank map{'s' * (blank != 1)}"] if blank else []
        return ", ".join(parts)


def _add_progress(row: ComparisonRow, bar: ProgressReporter) -> ComparisonRow:
    return replace(
        row,
        configs=tuple(
            job and replace(job, report_progress=bar.update_inner) for job in row.configs
        ),
    )
