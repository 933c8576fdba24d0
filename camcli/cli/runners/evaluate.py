"""What `camcli evaluate localization` does with scores: tells them, sums them, draws them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camcli.cli.console import (
    is_jsonl_output,
    print_data,
    print_error,
    print_info,
    print_table,
    show_progress,
)
from camcli.cli.options import OutputFormat
from camcli.core.errors import UsageError, to_one_line
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.registry import Dataset
from camcli.evaluation.datasets.samples import EvaluationSample, create_evaluation_samples
from camcli.evaluation.gallery import draw_gallery, draw_prediction
from camcli.evaluation.localization import (
    ImageScore,
    Scoreboard,
    choose_examples,
    score_predictions,
)
from camcli.evaluation.plots import draw_error_types, draw_iou_curves, draw_threshold_curves
from camcli.evaluation.predictions import EvaluationRow, PredictionSource
from camcli.evaluation.report import (
    RowMetrics,
    create_report,
    format_metrics_table,
    image_score_to_json,
    problems_to_csv,
    row_to_json,
    rows_to_csv,
    summarize_rows,
)
from camcli.io.files import write_file
from camcli.io.labels import Labels

REPORT_FILE = "localization.json"
METRICS_FILE, PROBLEMS_FILE = "localization.csv", "problems.csv"
PLOT_FILES = ("thresholds.png", "overlaps.png", "splits.png")
EVALUATION_FILES = (REPORT_FILE, METRICS_FILE, PROBLEMS_FILE, *PLOT_FILES)
EXAMPLES_PER_GROUP = 5  # images of a kind in a gallery
MAX_PROBLEMS_PRINTED = 3  # problems of a kind that are told as they are met
FAILURE_KINDS = ("image is missing", "image cannot be read", "map is missing", "map cannot be read")


LineWriter = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class EvaluateRun:
    """One evaluation: what is scored goes to the board and to images.jsonl, what is not is told.

    `start` opens images.jsonl; not before there is something to score, so that a mistake leaves
    an earlier run as it is.
    """

    dataset: Dataset
    class_filter: Sequence[str]
    limit: int | None
    strict: bool
    scoreboard: Scoreboard
    output: Path
    open_score_log: Callable[[], LineWriter]
    format: OutputFormat
    write_line: LineWriter | None = None
    problems: dict[Problem, None] = field(default_factory=dict)
    problem_counts: Counter[str] = field(default_factory=Counter)
    gallery_files: list[str] = field(default_factory=list)

    def score_images(
        self,
        prediction_source: PredictionSource[Any],
        labels: Labels,
        rows: Sequence[EvaluationRow],
        unknown_class: int | None = None,
    ) -> None:
        """Score every image on these rows, then draw each row's examples."""
        items, problems = create_evaluation_samples(
            self.dataset, labels, self.class_filter, self.limit, unknown_class
        )
        for problem in problems:
            self.add_problem(problem)
        if not items:
            raise UsageError(f"nothing to evaluate: {self._empty_message()}")
        if self.write_line is None:
            remove_old_report(self.output)
            self.write_line = self.open_score_log()
        total = len(items) * (len(rows) + 2)
        with show_progress("evaluating", total, self.format == "quiet") as bar:
            for found in score_predictions(prediction_source, items, rows, self.scoreboard.seed):
                if isinstance(found, ImageScore):
                    self.scoreboard.add_score(found)
                    self.write_line(image_score_to_json(found))
                else:
                    self.add_problem(found)
                bar.advance()
        for row in rows:
            if row in self.scoreboard.ious:
                self.draw_examples(prediction_source, items, row)

    def _empty_message(self) -> str:
        if self.problem_counts:
            return ", ".join(f"{count} x {kind}" for kind, count in self.problem_counts.items())
        return (
            "no image is of those classes" if self.class_filter else "the data set names no image"
        )

    def add_problem(self, problem: Problem) -> None:
        """Count a Problem, once, and tell the first few of a kind; `--strict` stops here."""
        if self.strict:
            raise UsageError(f"{problem}; without --strict it is left out and counted")
        if problem not in self.problems:
            self.problems[problem] = None
            self.problem_counts[problem.kind] += 1
            if self.problem_counts[problem.kind] <= MAX_PROBLEMS_PRINTED:
                print_error(problem)

    def draw_examples(
        self,
        prediction_source: PredictionSource[Any],
        samples: Sequence[EvaluationSample],
        row: EvaluationRow,
    ) -> None:
        """The worst, middling and best images of a row in one picture."""
        overlaps = self.scoreboard.ious[row]
        chosen = choose_examples(overlaps, EXAMPLES_PER_GROUP)
        wanted = [i for i in samples if any(i.index in numbers for numbers in chosen.values())]
        pictures = prediction_source(wanted, [row], lambda g: (g.sample.index, draw_prediction(g)))
        drawn = dict(found for found in pictures if not isinstance(found, Problem))
        sheet = {
            name: [(f"IoU {overlaps[n]:.2f}", drawn[n]) for n in numbers if n in drawn]
            for name, numbers in chosen.items()
        }
        name = _create_gallery_name(row, self.gallery_files)
        title = f"{row.name} · {row.model} · truth green, box white"
        write_file(self.output / name, draw_gallery(title, sheet))
        self.gallery_files.append(name)

    def write_report(self, header: Mapping[str, Any], floors: Mapping[str, float]) -> int:
        """Write the document, table and pictures; the exit status."""
        lines = summarize_rows(self.scoreboard)
        if not lines:
            raise UsageError(f"nothing was scored: {self._empty_message()}")
        problems = list(self.problems)
        document = create_report(lines, problems, {**header, "seed": self.scoreboard.seed})
        write_file(self.output / REPORT_FILE, f"{json.dumps(document, indent=1)}\n".encode())
        csv = rows_to_csv(lines).encode(errors="backslashreplace")
        write_file(self.output / METRICS_FILE, csv)
        if problems:
            rows = problems_to_csv(problems).encode(errors="backslashreplace")
            write_file(self.output / PROBLEMS_FILE, rows)
        several = len({line.row.model for line in lines}) > 1
        names = [
            f"{line.row.model} {line.row.name}" if several else line.row.name for line in lines
        ]
        drawings = (draw_threshold_curves, draw_iou_curves, draw_error_types)
        for name, draw in zip(PLOT_FILES, drawings, strict=True):
            if drawn := draw(lines, names):
                write_file(self.output / name, drawn)
        self.print_metrics(lines)
        for kind, count in self.problem_counts.items():
            print_info(f"{count} x {kind}")
        images = max(line.image_count for line in lines)
        print_info(f"{images} images; written to {to_one_line(self.output)}/")
        failed = [problem for problem in problems if problem.kind in FAILURE_KINDS]
        return int(bool(failed) | _report_missed_floors(lines, names, floors))

    def print_metrics(self, row_metrics: Sequence[RowMetrics]) -> None:
        """The table on standard output, or a line of JSON a row."""
        if self.format == "quiet":
            return
        if is_jsonl_output(self.format):
            for line in row_metrics:
                print_data(json.dumps(row_to_json(line)))
        else:
            print_table(format_metrics_table(row_metrics))


def remove_old_report(output: Path) -> None:
    """Clear away what an earlier evaluation wrote, so that nothing of it passes for this one's."""
    for path in (*(output / name for name in EVALUATION_FILES), *output.glob("gallery.*.jpg")):
        with suppress(OSError):
            path.unlink()


def _create_gallery_name(row: EvaluationRow, taken_names: Sequence[str]) -> str:
    words = re.findall(r"[A-Za-z0-9_+.]+", f"{row.model} {row.name}")
    slug = "-".join(words).strip(".")[-80:]
    name, number = f"gallery.{slug}.jpg", 1
    while name in taken_names:
        number += 1
        name = f"gallery.{slug}.{number}.jpg"
    return name


def _report_missed_floors(
    row_metrics: Sequence[RowMetrics], row_names: Sequence[str], floors: Mapping[str, float]
) -> bool:
    """Say which rows miss which floor; a metric that a row does not have is missed."""
    missed = [
        (name, metric, line.metrics.get(metric))
        for name, line in zip(row_names, row_metrics, strict=True)
        for metric, floor in floors.items()
        if not line.row.baseline
        and (metric not in line.metrics or line.metrics[metric].value < floor)
    ]
    for name, metric, found in missed:
        value = f"{found.value:.3f}" if found else "not measured"
        print_error(f"{name}: {metric} is {value}, under {floors[metric]:g}")
    return bool(missed)
