"""Explain many images into one folder: files, results.jsonl, run.json, and resuming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from camcli.core.errors import OutputError
from camcli.core.types import Failure, ImageSource, Result
from camcli.engine.providers.base import ProgressCallback
from camcli.io.jsonl import ResultsLog, lock_log
from camcli.io.results import RESULTS_FILE, compute_result_key, outcome_to_json
from camcli.runs.counts import ResultLine, RunCounts, is_complete_line
from camcli.runs.manifest import create_manifest_ending, remove_manifest
from camcli.runs.pipeline import find_file_stamp, run_pipeline
from camcli.runs.resume import ResumePlan, prune_log, sort_log
from camcli.runs.run_config import RunConfig, RunState
from camcli.runs.run_document import (
    check_same_settings,
    compute_run_key,
    load_manifest,
    write_manifest,
)
from camcli.runs.shard_batches import check_same_shard

Ending = Literal["done", "stopped", "interrupted", "failed"]


@dataclass(frozen=True, slots=True)
class ExplainTask:
    """The images to explain, and the output folder.

    `write_files` writes the files of one result and returns the result with their names.
    `manifest` is the content of run.json before the first image. `sources` is empty only in a shard
    of a run that has fewer batches than shards. Without `overwrite` or `resume`
    the folder must not hold a run.
    """

    config: RunConfig
    sources: Sequence[ImageSource | Failure]
    write_files: Callable[[Result], Result]
    output: Path
    manifest: Mapping[str, Any]
    overwrite: bool = False
    resume: bool = False
    stop_on_error: bool = False


@dataclass(slots=True)
class ExplainRun:
    """A running task: what it has counted so far, and how the run ended.

    `ending` is None until the output folder is open::

        run = ExplainRun.from_task(task)
        with run.open_folder() as log:
            for line in run.iter_lines(log):
                ...
    """

    task: ExplainTask
    state: RunState
    run_key: str
    start_time: float = field(default_factory=time.monotonic)
    counts: RunCounts = field(default_factory=RunCounts)
    done_paths: set[str] = field(default_factory=set)
    ending: Ending | None = None

    @classmethod
    def from_task(cls, task: ExplainTask) -> ExplainRun:
        """Prepare a run. Raises UsageError when it would resume a run with other settings."""
        earlier = load_manifest(task.output) if task.resume else {}
        if earlier:
            check_same_settings(task.output, earlier, task.manifest)
            check_same_shard(task.output, earlier, task.manifest)
        state = RunState.from_config(task.config, earlier.get("precision"))
        return cls(task, state, compute_run_key(task.manifest))

    @property
    def remaining_count(self) -> int:
        """The number of inputs without a result from an earlier run."""
        return len(self.task.sources) - len(self.done_paths)

    @contextmanager
    def open_folder(self) -> Iterator[ResultsLog]:
        """Lock the output folder; yield its results.jsonl.

        On a resume, only result lines that are still valid stay. When the context ends, for
        whatever reason, run.json is brought up to date. Raises OutputError.
        """
        task = self.task
        if task.resume:
            self._prune_log()
        path = task.output / RESULTS_FILE
        with ResultsLog.open(path, overwrite=task.overwrite, resume=task.resume) as log:
            write_manifest(task.output, task.manifest)
            self.ending = "failed"  # until `iter_lines` reaches its end
            try:
                yield log
            except KeyboardInterrupt:
                self.ending = "interrupted"
                raise
            finally:
                self._finish_folder()

    def iter_lines(
        self,
        log: ResultsLog,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        report_progress: ProgressCallback = lambda _done, _total: None,
    ) -> Iterator[ResultLine]:
        """Explain every image that has no result; yield each line once it is written.

        When `should_stop()` becomes true, the run finishes the current batch and ends.
        Raises StorageError when nothing can be written any more.
        """
        stops_early = False
        outcomes = run_pipeline(
            replace(self.task.config, report_progress=report_progress),
            self.task.sources,
            self.task.write_files,
            self.state,
            done_paths=self.done_paths,
            should_stop=lambda: stops_early or should_stop(),
        )
        for outcome in outcomes:
            line = outcome_to_json(outcome, self.task.config.model.name, self.run_key)
            log.append(line)
            self.counts.add_line(line)
            stops_early |= self.task.stop_on_error and not is_complete_line(line)
            yield line
        self.ending = "interrupted" if should_stop() else "stopped" if stops_early else "done"

    def _prune_log(self) -> None:
        output, plan = self.task.output, self._create_resume_plan()
        with lock_log(output / RESULTS_FILE):
            self.done_paths |= prune_log(output, plan, self.counts.add_earlier_line)

    def _create_resume_plan(self) -> ResumePlan:
        lines_per_image = len(self.task.config.requests)
        return ResumePlan.from_sources(self.task.sources, lines_per_image, self._compute_file_key)

    def _compute_file_key(self, path: str) -> str | None:
        stamp = find_file_stamp(Path(path))
        return compute_result_key(self.run_key, stamp) if stamp else None

    def _finish_folder(self) -> None:
        has_work = bool(self.task.sources)  # a shard without a batch is done at once
        if has_work and not self.counts.has_lines:  # leave no trace of a run without results
            remove_manifest(self.task.output)
            return
        try:
            self._write_ending()
        except OutputError:
            if self.ending == "done":  # otherwise camcli already raises an earlier error
                self.ending = "failed"
                raise

    def _write_ending(self) -> None:
        output, manifest = self.task.output, self.task.manifest
        if self.task.resume and self.ending == "done":
            sort_log(output, self._create_resume_plan().index_by_path)
        ended = create_manifest_ending(self.state, self.counts.to_json())
        write_manifest(output, {**manifest, "state": self.ending, **ended})
