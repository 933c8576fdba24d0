"""The files of an evaluation of faithfulness, and what a resumed one keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from matplotlib.figure import Figure

from camcli.core.errors import OutputError
from camcli.core.types import FileStamp
from camcli.evaluation.evaluation_files import encode_csv
from camcli.evaluation.faithfulness.evidence_lines import (
    evidence_to_json,
    iter_earlier_evidence,
)
from camcli.evaluation.faithfulness.faithfulness_plots import draw_agreement, draw_curves
from camcli.evaluation.faithfulness.faithfulness_report import FaithfulnessReport, rows_to_csv
from camcli.evaluation.faithfulness.scored_image import ImageEvidence
from camcli.evaluation.localization_report import problems_to_csv
from camcli.evaluation.predictions import EvaluationRow
from camcli.io.charts import ChartFormat, encode_chart
from camcli.io.file_names import (
    FAITHFULNESS_CSV,
    FAITHFULNESS_FILE,
    IMAGE_SCORES_FILE,
    PROBLEMS_FILE,
)
from camcli.io.files import write_file
from camcli.io.jsonl import ResultsLog, lock_log
from camcli.io.results import compute_result_key
from camcli.runs.pipeline import find_file_stamp
from camcli.runs.run_document import (
    check_same_settings,
    compute_run_key,
    load_manifest,
    write_manifest,
)

PLOTS: Mapping[str, Callable[[FaithfulnessReport], Figure | None]] = {
    "curves": draw_curves,
    "agreement": draw_agreement,
}
EXAMPLES_FILE = "examples.jpg"
SANITY_CHART = "sanity"


@dataclass(slots=True)
class FaithfulnessFiles:
    """The output folder: images.jsonl while the evaluation runs, the report at its end."""

    folder: Path
    manifest: Mapping[str, Any]
    overwrite: bool = False
    resume: bool = False
    chart_format: ChartFormat = "png"
    _log: ResultsLog | None = None
    _run_key: str = field(init=False)

    def __post_init__(self) -> None:
        self._run_key = compute_run_key(self.manifest)

    def check_earlier_settings(self) -> None:
        """Raise UsageError if a resumed evaluation had other settings."""
        earlier = load_manifest(self.folder) if self.resume else {}
        if earlier:
            check_same_settings(self.folder, earlier, self.manifest)

    def load_earlier(
        self, rows: Sequence[EvaluationRow], add_evidence: Callable[[ImageEvidence], None]
    ) -> set[str]:
        """Keep the valid lines of an earlier images.jsonl; return the paths of their images."""
        path = self.folder / IMAGE_SCORES_FILE
        if not self.resume or not path.is_file():
            return set()
        done: set[str] = set()
        temporary = path.with_name(f".{path.name}.tmp")
        with lock_log(path):
            with temporary.open("wb") as kept:
                for evidence, raw_lines in iter_earlier_evidence(path, rows, self._compute_key):
                    add_evidence(evidence)
                    done.add(str(evidence.source.path))
                    kept.writelines(raw_lines)
            temporary.replace(path)
        return done

    def _compute_key(self, image_path: str) -> str | None:
        stamp = find_file_stamp(Path(image_path))
        return self._create_key(stamp) if stamp else None

    def _create_key(self, stamp: FileStamp | None) -> str:
        return compute_result_key(self._run_key, stamp)

    def start(self) -> None:
        """Open images.jsonl, and write run.json. Raises OutputError."""
        path = self.folder / IMAGE_SCORES_FILE
        self._log = ResultsLog.open(path, overwrite=self.overwrite, resume=self.resume)
        self._remove_old_report()
        write_manifest(self.folder, self.manifest)

    def append_evidence(self, image: ImageEvidence) -> None:
        """Append one line per row to images.jsonl."""
        if self._log is None:
            raise OutputError("the evaluation has not started")
        for line in evidence_to_json(image, self._create_key(find_file_stamp(image.source.path))):
            self._log.append(line)

    def close(self) -> None:
        """Close images.jsonl; without lines it is removed."""
        if self._log is not None:
            self._log.close()

    def write_report(self, report: FaithfulnessReport) -> None:
        """Write the report as JSON and CSV, the problems, and the plots."""
        content = f"{json.dumps(report.to_dict(), indent=1)}\n".encode()
        write_file(self.folder / FAITHFULNESS_FILE, content)
        write_file(self.folder / FAITHFULNESS_CSV, encode_csv(rows_to_csv(report.rows)))
        if report.problems:
            write_file(self.folder / PROBLEMS_FILE, encode_csv(problems_to_csv(report.problems)))
        for name, draw in PLOTS.items():
            self.write_chart(name, draw(report))

    def write_chart(self, name: str, chart: Figure | None) -> None:
        """Write a chart, if there is one."""
        if chart:
            content = encode_chart(chart, self.chart_format)
            write_file(self.folder / f"{name}.{self.chart_format}", content)

    def write_examples(self, picture: bytes) -> None:
        """Write the picture of what the network saw."""
        write_file(self.folder / EXAMPLES_FILE, picture)

    def _remove_old_report(self) -> None:
        names = (FAITHFULNESS_FILE, FAITHFULNESS_CSV, PROBLEMS_FILE, EXAMPLES_FILE)
        endings = get_args(ChartFormat)
        charts = (f"{name}.{ending}" for name in (*PLOTS, SANITY_CHART) for ending in endings)
        for name in (*names, *charts):
            with suppress(OSError):
                (self.folder / name).unlink()
