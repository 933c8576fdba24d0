"""The files of an evaluation: a line per score while it runs, then report, tables and pictures."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from typing import get_args

from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.evaluation_plots import (
    draw_error_types,
    draw_iou_curves,
    draw_threshold_curves,
)
from camcli.evaluation.localization_report import (
    LocalizationReport,
    image_score_to_json,
    problems_to_csv,
    rows_to_csv,
)
from camcli.evaluation.predictions import EvaluationRow
from camcli.evaluation.score_log import EarlierScores, append_problem, append_score
from camcli.evaluation.scores import ImageScore
from camcli.io.charts import ChartFormat, encode_chart
from camcli.io.discovery import create_output_stems
from camcli.io.file_names import (
    GALLERY_FOLDER,
    IMAGE_SCORES_FILE,
    METRICS_FILE,
    PROBLEMS_FILE,
    REPORT_FILE,
    SCORE_LOG_FILE,
)
from camcli.io.files import shorten_stem, write_file
from camcli.io.jsonl import ResultsLog
from camcli.io.labels import Labels

PLOTS = {
    "thresholds": draw_threshold_curves,
    "overlaps": draw_iou_curves,
    "splits": draw_error_types,
}


@dataclass(slots=True)
class EvaluationFiles:
    """The files of one evaluation. Earlier files stay until the first score."""

    folder: Path
    overwrite: bool = False
    chart_format: ChartFormat = "png"
    resume: bool = False
    _log: ResultsLog | None = None
    _score_log: ResultsLog | None = None
    _slugs: dict[EvaluationRow, str] = field(default_factory=dict)

    def start(self) -> ResultsLog:
        """Remove the files of an earlier evaluation and open images.jsonl, if not yet done."""
        if self._log is None:
            remove_old_report(self.folder, keep_pictures=self.resume)
            replaces = self.overwrite or self.resume  # scores.jsonl has what a resumed one needs
            self._log = ResultsLog.open(self.folder / IMAGE_SCORES_FILE, overwrite=replaces)
            self._score_log = ResultsLog.open(
                self.folder / SCORE_LOG_FILE, overwrite=self.overwrite, resume=self.resume
            )
        return self._log

    def append_score(self, image_score: ImageScore, key: str, *, is_earlier: bool = False) -> None:
        """Append a line to images.jsonl, and to scores.jsonl unless it is there already."""
        self.start().append(image_score_to_json(image_score))
        if self._score_log is not None and not is_earlier:
            append_score(self._score_log, key, image_score)

    def append_problem(self, problem: Problem) -> None:
        """Append a problem to scores.jsonl."""
        if self._score_log is not None:
            append_problem(self._score_log, problem)

    def load_earlier_scores(self, keys: Iterable[str]) -> EarlierScores:
        """The scores that a resumed evaluation continues; none for a new one.

        Raises UsageError if there are scores, but none with one of these keys.
        """
        path = self.folder / SCORE_LOG_FILE
        earlier = EarlierScores.load(path) if self.resume else EarlierScores(path)
        earlier.check_has_any(keys)
        return earlier

    def close(self) -> None:
        """Close both logs; without lines they are removed."""
        for log in (self._log, self._score_log):
            if log is not None:
                log.close()

    def write_gallery(self, row: EvaluationRow, picture: bytes) -> None:
        """Write the gallery of a row under a name of its own."""
        write_file(self.folder / f"gallery.{self._find_slug(row)}.jpg", picture)

    def write_boxed_picture(self, row: EvaluationRow, stem: str, picture: bytes) -> None:
        """Write the picture of one image below `gallery/`, in the folder of its row."""
        write_file(self.folder / GALLERY_FOLDER / self._find_slug(row) / f"{stem}.jpg", picture)

    def _find_slug(self, row: EvaluationRow) -> str:
        if row not in self._slugs:
            self._slugs[row] = _create_slug(row, [*self._slugs.values()])
        return self._slugs[row]

    def write_report(self, report: LocalizationReport) -> None:
        """Write the report as JSON and CSV, the problems, and the plots."""
        content = f"{json.dumps(report.to_dict(), indent=1)}\n".encode()
        write_file(self.folder / REPORT_FILE, content)
        write_file(self.folder / METRICS_FILE, encode_csv(rows_to_csv(report.rows)))
        if report.problems:
            write_file(self.folder / PROBLEMS_FILE, encode_csv(problems_to_csv(report.problems)))
        for name, draw in PLOTS.items():
            if chart := draw(report.rows, report.row_names):
                content = encode_chart(chart, self.chart_format)
                write_file(self.folder / f"{name}.{self.chart_format}", content)


def encode_csv(text: str) -> bytes:
    """The bytes of a CSV file; odd characters of file names are escaped."""
    return text.encode(errors="backslashreplace")


def remove_old_report(folder: Path, *, keep_pictures: bool = False) -> None:
    """Remove the files of an earlier evaluation, so that they are not mistaken for new ones."""
    charts = (f"{name}.{ending}" for name in PLOTS for ending in get_args(ChartFormat))
    names = (REPORT_FILE, METRICS_FILE, PROBLEMS_FILE, *charts)
    boxed = [] if keep_pictures else _iter_boxed_pictures(folder / GALLERY_FOLDER)
    pictures = (*folder.glob("gallery.*.jpg"), *boxed)
    for path in (*(folder / name for name in names), *pictures):
        with suppress(OSError):
            path.unlink()


def _iter_boxed_pictures(folder: Path) -> Iterator[Path]:
    if folder.is_symlink():
        return
    for place, _, files in os.walk(folder):
        yield from (Path(place, file) for file in files if file.endswith(".jpg"))


def _create_slug(row: EvaluationRow, taken: Collection[str]) -> str:
    """A distinct part of a file name for a row: its model, method and layers."""
    model = Path(row.model).name  # a checkpoint may have a long path
    words = re.findall(r"[A-Za-z0-9_+.]+", f"{model} {row.name}")
    slug = "-".join(words).strip(".")[-80:]
    numbered = (slug if n == 1 else f"{slug}.{n}" for n in count(1))
    return next(name for name in numbered if name not in taken)


def create_picture_stems(samples: Sequence[EvaluationSample], labels: Labels) -> Mapping[int, str]:
    """A distinct stem for the picture of each sample, by its index: that of its image.

    Samples of one image, one for each class, get the class, too: `birds/a.crow`.
    """
    image_count = Counter(sample.annotation.image_name for sample in samples)

    def create_name(sample: EvaluationSample) -> str:
        path = PurePosixPath(sample.annotation.image_name)
        if image_count[sample.annotation.image_name] == 1:
            return str(path)
        words = re.findall(r"\w+", labels.names[sample.class_index])
        return f"{path.with_suffix('')}.{'-'.join(words)[:40]}{path.suffix}"

    stems = create_output_stems([create_name(sample) for sample in samples])
    return {s.index: shorten_stem(stem) for s, stem in zip(samples, stems, strict=True)}
