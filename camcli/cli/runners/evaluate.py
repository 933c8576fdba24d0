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

from camcli.cli import console
from camcli.cli.options import Format
from camcli.core.errors import UsageError, one_line
from camcli.evaluation import gallery, localization, report
from camcli.evaluation import plots as charts
from camcli.evaluation.datasets import registry as datasets
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.registry import Dataset, EvaluationSample
from camcli.evaluation.localization import Scoreboard
from camcli.evaluation.predictions import EvaluationRow, PredictionSource
from camcli.evaluation.report import RowMetrics
from camcli.io.files import write
from camcli.io.labels import Labels

DOCUMENT = "localization.json"
TABLE, PROBLEMS = "localization.csv", "problems.csv"
CHARTS = ("thresholds.png", "overlaps.png", "splits.png")
FILES = (DOCUMENT, TABLE, PROBLEMS, *CHARTS)
EXAMPLES = 5  # images of a kind in a gallery
TOLD = 3  # problems of a kind that are told as they are met
FAILURES = ("image is missing", "image cannot be read", "map is missing", "map cannot be read")


Write = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class Run:
    """One evaluation: what is scored goes to the board and to images.jsonl, what is not is told.

    `start` opens images.jsonl; not before there is something to score, so that a mistake leaves
    an earlier run as it is.
    """

    data: Dataset
    classes: Sequence[str]
    limit: int | None
    strict: bool
    board: Scoreboard
    output: Path
    start: Callable[[], Write]
    format: Format
    write: Write | None = None
    problems: dict[Problem, None] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    pictures: list[str] = field(default_factory=list)

    def score(
        self,
        produce: PredictionSource[Any],
        labels: Labels,
        rows: Sequence[EvaluationRow],
        unknown: int | None = None,
    ) -> None:
        """Score every image on these rows, then draw each row's examples."""
        items, problems = datasets.create_evaluation_samples(
            self.data, labels, self.classes, self.limit, unknown
        )
        for problem in problems:
            self.note(problem)
        if not items:
            raise UsageError(f"nothing to evaluate: {self._why_nothing()}")
        if self.write is None:
            remove_earlier(self.output)
            self.write = self.start()
        total = len(items) * (len(rows) + 2)
        with console.progress("evaluating", total, self.format == "quiet") as bar:
            for found in localization.score_predictions(produce, items, rows, self.board.seed):
                if isinstance(found, localization.ImageScore):
                    self.board.add_score(found)
                    self.write(report.image_score_to_json(found))
                else:
                    self.note(found)
                bar.advance()
        for row in rows:
            if row in self.board.ious:
                self.draw_examples(produce, items, row)

    def _why_nothing(self) -> str:
        if self.kinds:
            return ", ".join(f"{count} x {kind}" for kind, count in self.kinds.items())
        return "no image is of those classes" if self.classes else "the data set names no image"

    def note(self, problem: Problem) -> None:
        """Count a Problem, once, and tell the first few of a kind; `--strict` stops here."""
        if self.strict:
            raise UsageError(f"{problem}; without --strict it is left out and counted")
        if problem not in self.problems:
            self.problems[problem] = None
            self.kinds[problem.kind] += 1
            if self.kinds[problem.kind] <= TOLD:
                console.complain(problem)

    def draw_examples(
        self, produce: PredictionSource[Any], items: Sequence[EvaluationSample], row: EvaluationRow
    ) -> None:
        """The worst, middling and best images of a row in one picture."""
        overlaps = self.board.ious[row]
        chosen = localization.choose_examples(overlaps, EXAMPLES)
        wanted = [i for i in items if any(i.index in numbers for numbers in chosen.values())]
        pictures = produce(wanted, [row], lambda g: (g.sample.index, gallery.draw_prediction(g)))
        drawn = dict(found for found in pictures if not isinstance(found, Problem))
        sheet = {
            name: [(f"IoU {overlaps[n]:.2f}", drawn[n]) for n in numbers if n in drawn]
            for name, numbers in chosen.items()
        }
        name = _file_name(row, self.pictures)
        title = f"{row.name} · {row.model} · truth green, box white"
        write(self.output / name, gallery.draw_gallery(title, sheet))
        self.pictures.append(name)

    def report(self, about: Mapping[str, Any], floors: Mapping[str, float]) -> int:
        """Write the document, table and pictures; the exit status."""
        lines = report.summarize_rows(self.board)
        if not lines:
            raise UsageError(f"nothing was scored: {self._why_nothing()}")
        problems = list(self.problems)
        document = report.create_report(lines, problems, {**about, "seed": self.board.seed})
        write(self.output / DOCUMENT, f"{json.dumps(document, indent=1)}\n".encode())
        csv = report.rows_to_csv(lines).encode(errors="backslashreplace")
        write(self.output / TABLE, csv)
        if problems:
            rows = report.problems_to_csv(problems).encode(errors="backslashreplace")
            write(self.output / PROBLEMS, rows)
        several = len({line.row.model for line in lines}) > 1
        names = [
            f"{line.row.model} {line.row.name}" if several else line.row.name for line in lines
        ]
        drawings = (charts.draw_threshold_curves, charts.draw_iou_curves, charts.draw_error_types)
        for name, draw in zip(CHARTS, drawings, strict=True):
            if drawn := draw(lines, names):
                write(self.output / name, drawn)
        self.show(lines)
        for kind, count in self.kinds.items():
            console.say(f"{count} x {kind}")
        images = max(line.image_count for line in lines)
        console.say(f"{images} images; written to {one_line(self.output)}/")
        failed = [problem for problem in problems if problem.kind in FAILURES]
        return int(bool(failed) | _below(lines, names, floors))

    def show(self, lines: Sequence[RowMetrics]) -> None:
        """The table on standard output, or a line of JSON a row."""
        if self.format == "quiet":
            return
        if console.for_machines(self.format):
            for line in lines:
                console.emit(json.dumps(report.row_to_json(line)))
        else:
            console.table(report.format_metrics_table(lines))


def remove_earlier(output: Path) -> None:
    """Clear away what an earlier evaluation wrote, so that nothing of it passes for this one's."""
    for path in (*(output / name for name in FILES), *output.glob("gallery.*.jpg")):
        with suppress(OSError):
            path.unlink()


def _file_name(row: EvaluationRow, taken: Sequence[str]) -> str:
    words = re.findall(r"[A-Za-z0-9_+.]+", f"{row.model} {row.name}")
    slug = "-".join(words).strip(".")[-80:]
    name, number = f"gallery.{slug}.jpg", 1
    while name in taken:
        number += 1
        name = f"gallery.{slug}.{number}.jpg"
    return name


def _below(lines: Sequence[RowMetrics], names: Sequence[str], floors: Mapping[str, float]) -> bool:
    """Say which rows miss which floor; a metric that a row does not have is missed."""
    missed = [
        (name, metric, line.metrics.get(metric))
        for name, line in zip(names, lines, strict=True)
        for metric, floor in floors.items()
        if not line.row.baseline
        and (metric not in line.metrics or line.metrics[metric].value < floor)
    ]
    for name, metric, found in missed:
        value = f"{found.value:.3f}" if found else "not measured"
        console.complain(f"{name}: {metric} is {value}, under {floors[metric]:g}")
    return bool(missed)
