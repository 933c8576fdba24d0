"""Evaluate the faithfulness of maps: compute maps, change images, ask the network, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from camcli.core.errors import CamcliError, UsageError
from camcli.core.types import Failure, ImageSource, Result
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.faithfulness.evidence_board import EvidenceBoard
from camcli.evaluation.faithfulness.faithfulness_files import (
    SANITY_CHART,
    FaithfulnessFiles,
)
from camcli.evaluation.faithfulness.faithfulness_options import SanityCheck
from camcli.evaluation.faithfulness.faithfulness_report import FaithfulnessReport, create_report
from camcli.evaluation.faithfulness.map_preparation import MapRows, iter_prepared_images
from camcli.evaluation.faithfulness.masked_passes import PassPlan
from camcli.evaluation.faithfulness.pass_examples import MAX_EXAMPLES, draw_pass_examples
from camcli.evaluation.faithfulness.pass_runner import PassRunner
from camcli.evaluation.faithfulness.sanity_checks import (
    SANITY_IMAGES,
    SanityReport,
    run_sanity_checks,
)
from camcli.evaluation.faithfulness.sanity_plots import draw_sanity
from camcli.evaluation.faithfulness.scored_image import ImageEvidence, PreparedImage
from camcli.evaluation.reporter import EvaluationReporter
from camcli.io.charts import ChartFormat
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunConfig

CPU_PASSES_AT_ONCE = 8  # a CPU's caches hold no more


@dataclass(frozen=True, slots=True)
class FaithfulnessConfig:
    """What to evaluate: the images, the rows, the passes, and the output folder.

    `manifest` is the content of run.json, for `resume`. Without `output` nothing is written.
    """

    run_config: RunConfig
    sources: Sequence[ImageSource | Failure]
    map_rows: MapRows
    plan: PassPlan
    manifest: Mapping[str, Any]
    resamples: int = 1000
    seed: int = 0
    output: Path | None = None
    overwrite: bool = False
    resume: bool = False
    sanity_checks: tuple[SanityCheck, ...] = ()
    chart_format: ChartFormat = "png"


def run_faithfulness(
    config: FaithfulnessConfig, reporter: EvaluationReporter | None = None
) -> FaithfulnessReport:
    """Score every row on every image; write and return the report.

    On an interrupt or an error, what was scored so far is written and reported as incomplete
    before the error is raised. Raises UsageError if nothing can be scored.
    """
    run = _FaithfulnessRun(
        config=config,
        reporter=reporter or EvaluationReporter(),
        board=EvidenceBoard(config.plan.metrics, config.resamples, config.seed),
        files=_create_files(config),
    )
    with closing(run):
        try:
            run.score_images()
            run.check_sanity()
        except (CamcliError, KeyboardInterrupt):
            if run.board.image_count:
                run.finish(complete=False)
            raise
        return run.finish(complete=True)


def _create_files(config: FaithfulnessConfig) -> FaithfulnessFiles | None:
    if config.output is None:
        return None
    return FaithfulnessFiles(
        folder=config.output,
        manifest=config.manifest,
        overwrite=config.overwrite,
        resume=config.resume,
        chart_format=config.chart_format,
    )


@dataclass(slots=True)
class _FaithfulnessRun:
    """One evaluation and what it has found so far."""

    config: FaithfulnessConfig
    reporter: EvaluationReporter
    board: EvidenceBoard
    files: FaithfulnessFiles | None
    problems: list[Problem] = field(default_factory=list)
    examples: list[PreparedImage] = field(default_factory=list)
    sanity: SanityReport | None = None

    def score_images(self) -> None:
        """Score every image that has no evidence from an earlier evaluation."""
        config, done = self.config, set[str]()
        if self.files:
            self.files.check_earlier_settings()
            done = self.files.load_earlier(config.map_rows.rows, self.board.add_evidence)
            self.files.start()
        outcomes = run_pipeline(config.run_config, config.sources, _keep_result, done_paths=done)
        with (
            torch.no_grad(),
            self.reporter.track_progress(len(config.sources) - len(done)) as advance,
        ):
            for evidence in self._create_runner().iter_evidence(self._iter_images(outcomes)):
                self._add_evidence(evidence)
                advance()

    def _create_runner(self) -> PassRunner:
        model, size = self.config.run_config.model, self.config.run_config.batch_size
        at_once = min(size, CPU_PASSES_AT_ONCE) if model.device.type == "cpu" else 2 * size
        return PassRunner(model, self.config.plan, at_once)

    def _iter_images(self, outcomes: Iterable[Result | Failure]) -> Iterator[PreparedImage]:
        for item in iter_prepared_images(self.config.map_rows, outcomes):
            if isinstance(item, Problem):
                self.problems.append(item)
                self.reporter.report_problem(item)
                continue
            if len(self.examples) < MAX_EXAMPLES:
                self.examples.append(item)
            yield item

    def _add_evidence(self, evidence: ImageEvidence) -> None:
        self.board.add_evidence(evidence)
        if self.files:
            self.files.append_evidence(evidence)

    def check_sanity(self) -> None:
        """Run the sanity checks on the first images, with the methods that are no baselines."""
        config = self.config
        if config.sanity_checks:
            self.sanity = run_sanity_checks(
                replace(config.run_config, requests=config.map_rows.method_requests),
                config.sources[:SANITY_IMAGES],
                config.sanity_checks,
                config.seed,
                self.reporter.report_progress,
            )

    def finish(self, *, complete: bool) -> FaithfulnessReport:
        """Write and return the report. Raises UsageError if nothing was scored."""
        if not self.board.image_count:
            counts = Counter(problem.kind for problem in self.problems)
            found = ", ".join(f"{count} x {kind}" for kind, count in counts.items())
            raise UsageError(f"nothing was scored: {found or 'there are no images'}")
        report = create_report(
            self.board,
            self.config.manifest["settings"],
            self.problems,
            complete=complete,
            sanity=self.sanity,
        )
        if self.files:
            self.files.write_report(report)
            if self.examples and self.config.plan.curves:
                with torch.no_grad():
                    picture = draw_pass_examples(
                        self.config.run_config.model, self.config.plan, self.examples
                    )
                self.files.write_examples(picture)
            if self.sanity:
                self.files.write_chart(SANITY_CHART, draw_sanity(self.sanity))
        self.reporter.report_result(report)
        return report

    def close(self) -> None:
        """Close the files."""
        if self.files:
            self.files.close()


def _keep_result(result: Result) -> Result:
    return result
