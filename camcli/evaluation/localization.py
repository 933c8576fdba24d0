"""Evaluate maps and boxes against the ground truth of a data set, and write the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from camcli.core.errors import CamcliError, UsageError
from camcli.core.types import FitMode
from camcli.evaluation.baselines import BASELINE_NAMES
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.evaluation_samples import (
    EvaluationSample,
    create_evaluation_samples,
)
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import Dataset
from camcli.evaluation.evaluation_files import EvaluationFiles, create_picture_stems
from camcli.evaluation.gallery import draw_examples, encode_boxed_picture
from camcli.evaluation.localization_report import LocalizationReport, summarize_rows
from camcli.evaluation.predictions import MapSource, Prediction
from camcli.evaluation.reporter import EvaluationReporter
from camcli.evaluation.score_log import EarlierScores, compute_sample_keys, list_all_rows
from camcli.evaluation.scoreboard import Scoreboard
from camcli.evaluation.scores import ImageScore, score_predictions
from camcli.io.charts import ChartFormat

GalleryChoice = Literal["examples", "all"]


@dataclass(frozen=True, slots=True)
class LocalizationConfig:
    """The data set and settings of an evaluation. `strict` stops at the first problem.

    `class_filter` keeps the classes of these names or indices, `limit` N images of a fixed shuffle.
    Without `output` nothing is written. With the gallery "all", every image is drawn.
    """

    paths: DatasetPaths
    dataset: Dataset
    class_filter: Sequence[str] = ()
    limit: int | None = None
    strict: bool = False
    fit: FitMode = "squash"
    resamples: int = 1000
    seed: int = 0
    output: Path | None = None
    overwrite: bool = False
    gallery: GalleryChoice = "examples"
    chart_format: ChartFormat = "png"
    resume: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


def run_localization(
    config: LocalizationConfig,
    sources: Iterable[MapSource],
    reporter: EvaluationReporter | None = None,
) -> LocalizationReport:
    """Score the maps of each source, then write and return the report.

    `sources` may be lazy, so that only one model is in memory at a time. If a source fails, or on
    an interrupt, the scores so far are written and reported as incomplete before the error is
    raised. Raises UsageError if nothing can be evaluated, and for the first problem if `strict`.
    """
    run = _LocalizationRun(
        config=config,
        reporter=reporter or EvaluationReporter(),
        files=_create_files(config),
        scoreboard=Scoreboard(config.resamples, config.seed),
    )
    with closing(run):
        try:
            for source in sources:
                run.evaluate_source(source)
                del source  # frees a model before the next one is loaded
        except (CamcliError, KeyboardInterrupt):
            if run.scoreboard.metric_sums:
                run.finish(complete=False)
            raise
        return run.finish(complete=True)


def _create_files(config: LocalizationConfig) -> EvaluationFiles | None:
    if config.output is None:
        return None
    return EvaluationFiles(config.output, config.overwrite, config.chart_format, config.resume)


@dataclass(slots=True)
class _LocalizationRun:
    """One evaluation and what it has found so far."""

    config: LocalizationConfig
    reporter: EvaluationReporter
    files: EvaluationFiles | None
    scoreboard: Scoreboard
    problems: dict[Problem, None] = field(default_factory=dict)  # each once, in order
    earlier: EarlierScores | None = None

    def evaluate_source(self, source: MapSource) -> None:
        """Score every image on the rows of a source, then draw examples of each row."""
        samples = self._create_samples(source)
        settings, seed = self.config.settings, self.config.seed
        keys = compute_sample_keys(source, samples, settings, seed) if self.files else {}
        show = self._create_picture_writer(source, samples)
        left = self._add_earlier_scores(source, samples, keys)
        total = len(left) * (len(source.rows) + len(BASELINE_NAMES))
        with self.reporter.track_progress(total) as advance:
            for found in score_predictions(source, left, seed, show) if left else ():
                self._add_outcome(found, keys)
                advance()
        for row in source.rows:
            if self.files and row in self.scoreboard.ious:
                ious = self.scoreboard.ious[row]
                self.files.write_gallery(row, draw_examples(source, samples, row, ious))

    def _create_picture_writer(
        self, source: MapSource, samples: Sequence[EvaluationSample]
    ) -> Callable[[Prediction, ImageScore], None]:
        """The function that writes the picture of one prediction, if all are asked for."""
        files = self.files
        if files is None or self.config.gallery == "examples":
            return lambda _prediction, _score: None
        names, stems = source.labels.names, create_picture_stems(samples, source.labels)

        def write(prediction: Prediction, found: ImageScore) -> None:
            class_name = names[prediction.sample.class_index]
            picture = encode_boxed_picture(prediction, found.score.iou, class_name)
            files.write_boxed_picture(prediction.row, stems[prediction.sample.index], picture)

        return write

    def _create_samples(self, source: MapSource) -> list[EvaluationSample]:
        samples, problems = create_evaluation_samples(
            self.config.dataset,
            source.labels,
            self.config.class_filter,
            self.config.limit,
            source.unknown_class,
        )
        for problem in problems:
            self._add_problem(problem)
        if not samples:
            raise UsageError(f"nothing to evaluate: {self._empty_message()}")
        return samples

    def _add_earlier_scores(
        self, source: MapSource, samples: Sequence[EvaluationSample], keys: Mapping[int, str]
    ) -> list[EvaluationSample]:
        """Add the scores that an earlier evaluation has; return the samples without any."""
        if self.files is None:
            return list(samples)
        if self.earlier is None:  # the first source, before scores.jsonl is open
            self.earlier = self.files.load_earlier_scores(keys.values())
        done = self.earlier.find_done(samples, keys, list_all_rows(source.rows))
        self.files.start()
        for score in (score for scores in done.values() for score in scores):
            self.scoreboard.add_score(score)
            self.files.append_score(score, keys[score.sample.index], is_earlier=True)
        images = {sample.annotation.image_name for sample in samples if sample.index in done}
        for problem in self.earlier.list_problems(images):
            self._add_problem(problem)
        return [sample for sample in samples if sample.index not in done]

    def _add_outcome(self, outcome: ImageScore | Problem, keys: Mapping[int, str]) -> None:
        if isinstance(outcome, Problem):
            self._add_problem(outcome)
            if self.files:
                self.files.append_problem(outcome)
            return
        self.scoreboard.add_score(outcome)
        if self.files:
            self.files.append_score(outcome, keys[outcome.sample.index])

    def _add_problem(self, problem: Problem) -> None:
        if self.config.strict:
            raise UsageError(f"{problem}; omit --strict to skip and count such problems")
        if problem not in self.problems:
            self.problems[problem] = None
            self.reporter.report_problem(problem)

    def _empty_message(self) -> str:
        counts = Counter(problem.kind for problem in self.problems)
        if counts:
            return ", ".join(f"{count} x {kind}" for kind, count in counts.items())
        if self.config.class_filter:
            return "the data set has no images of these classes"
        return "the data set has no images"

    def finish(self, *, complete: bool) -> LocalizationReport:
        """Write and return the report. Raises UsageError if nothing was scored."""
        rows = summarize_rows(self.scoreboard)
        if not rows:
            raise UsageError(f"nothing was scored: {self._empty_message()}")
        report = LocalizationReport(
            dataset=str(self.config.paths.root),
            kind=self.config.dataset.kind,
            split=self.config.paths.split,
            limit=self.config.limit,
            fit=self.config.fit,
            complete=complete,
            seed=self.config.seed,
            rows=rows,
            problems=tuple(self.problems),
        )
        if self.files:
            self.files.write_report(report)
        self.reporter.report_result(report)
        return report

    def close(self) -> None:
        """Close the files."""
        if self.files:
            self.files.close()
