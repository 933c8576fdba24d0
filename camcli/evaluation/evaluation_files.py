"""The files of an evaluation: a line per score while it runs, then report, tables and pictures."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from camcli.evaluation.evaluation_plots import (
    draw_error_types,
    draw_iou_curves,
    draw_threshold_curves,
)
from camcli.evaluation.file_names import (
    IMAGE_SCORES_FILE,
    METRICS_FILE,
    PROBLEMS_FILE,
    REPORT_FILE,
)
from camcli.evaluation.predictions import EvaluationRow
from camcli.evaluation.report import (
    LocalizationReport,
    image_score_to_json,
    problems_to_csv,
    rows_to_csv,
)
from camcli.evaluation.scores import ImageScore
from camcli.io.files import write_file
from camcli.io.jsonl import ResultsLog

PLOTS = {
    "thresholds.png": draw_threshold_curves,
    "overlaps.png": draw_iou_curves,
    "splits.png": draw_error_types,
}


@dataclass(slots=True)
class EvaluationFiles:
    """The files of one evaluation. Earlier files stay until the first score."""

    folder: Path
    overwrite: bool = False
    _log: ResultsLog | None = None
    _gallery_names: list[str] = field(default_factory=list)

    def start(self) -> ResultsLog:
        """Remove the files of an earlier evaluation and open images.jsonl, if not yet done."""
        if self._log is None:
            remove_old_report(self.folder)
            self._log = ResultsLog.open(self.folder / IMAGE_SCORES_FILE, overwrite=self.overwrite)
        return self._log

    def append_score(self, image_score: ImageScore) -> None:
        """Append a line to images.jsonl."""
        self.start().append(image_score_to_json(image_score))

    def close(self) -> None:
        """Close images.jsonl; without lines it is removed."""
        if self._log is not None:
            self._log.close()

    def write_gallery(self, row: EvaluationRow, picture: bytes) -> None:
        """Write the gallery of a row under a name of its own."""
        name = _create_gallery_name(row, self._gallery_names)
        write_file(self.folder / name, picture)
        self._gallery_names.append(name)

    def write_report(self, report: LocalizationReport) -> None:
        """Write the report as JSON and CSV, the problems, and the plots."""
        content = f"{json.dumps(report.to_dict(), indent=1)}\n".encode()
        write_file(self.folder / REPORT_FILE, content)
        write_file(self.folder / METRICS_FILE, encode_csv(rows_to_csv(report.rows)))
        if report.problems:
            write_file(self.folder / PROBLEMS_FILE, encode_csv(problems_to_csv(report.problems)))
        for name, draw in PLOTS.items():
            if picture := draw(report.rows, report.row_names):
                write_file(self.folder / name, picture)


def encode_csv(text: str) -> bytes:
    """The bytes of a CSV file; odd characters of file names are escaped."""
    return text.encode(errors="backslashreplace")


def remove_old_report(folder: Path) -> None:
    """Remove the files of an earlier evaluation, so that they are not mistaken for new ones."""
    names = (REPORT_FILE, METRICS_FILE, PROBLEMS_FILE, *PLOTS)
    for path in (*(folder / name for name in names), *folder.glob("gallery.*.jpg")):
        with suppress(OSError):
            path.unlink()


def _create_gallery_name(row: EvaluationRow, taken_names: list[str]) -> str:
    words = re.findall(r"[A-Za-z0-9_+.]+", f"{row.model} {row.name}")
    slug = "-".join(words).strip(".")[-80:]
    name, number = f"gallery.{slug}.jpg", 1
    while name in taken_names:
        number += 1
        name = f"gallery.{slug}.{number}.jpg"
    return name
