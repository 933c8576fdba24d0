"""A run of `camcli explain` from its first image to its summary; and again, where it was broken."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from camcli.cli.console import print_error, print_notice, show_progress
from camcli.cli.interrupts import StopFlag, handle_interrupts
from camcli.cli.options import OutputFormat
from camcli.cli.result_rows import create_result_printer
from camcli.cli.summary import RunSummary
from camcli.core.concurrency import PhaseTimer
from camcli.core.errors import OutputError, to_one_line
from camcli.core.types import Failure, ImageSource, Result
from camcli.engine.plan import find_model_default_layer
from camcli.io.jsonl import ResultsLog, lock_log
from camcli.io.results import RESULTS_FILE, compute_result_key, outcome_to_json
from camcli.runs.config import RunConfig, RunState
from camcli.runs.manifest import (
    check_same_settings,
    compute_run_key,
    create_manifest_ending,
    load_manifest,
    remove_manifest,
    write_manifest,
)
from camcli.runs.pipeline import RunCallbacks, find_file_stamp, run_pipeline
from camcli.runs.resume import ResumePlan, prune_log, sort_log

MAX_COMMAND_CHARACTERS = 300  # characters of a command that is repeated to the user


@dataclass(frozen=True)
class ExplainRun:
    """Images to explain, and what becomes of them.

    `finish` writes the files of a result; `document` is run.json as far as it is known.
    """

    config: RunConfig
    sources: Sequence[ImageSource | Failure]
    finish_result: Callable[[Result], Result]
    output: Path
    document: Mapping[str, Any]
    format: OutputFormat
    overwrite: bool
    resume: bool
    stop_on_error: bool
    summary: RunSummary = field(default_factory=RunSummary)
    timer: PhaseTimer = field(default_factory=PhaseTimer)
    done_paths: set[str] = field(default_factory=set)

    def run(self) -> int:
        """Explain all that has not been; the exit status."""
        course = self._create_run_state()
        if self.resume:
            self._prune_log()
        state, path = "failed", self.output / RESULTS_FILE
        with (
            ResultsLog.open(path, overwrite=self.overwrite, resume=self.resume) as log,
            handle_interrupts() as stop,
        ):
            write_manifest(self.output, self.document)
            try:
                self._explain_images(course, stop, log.append)
                state = (
                    "interrupted" if stop.signal_number else "stopped" if stop.is_set else "done"
                )
            except OutputError as error:
                print_error(error)
            except KeyboardInterrupt:
                state = "interrupted"
                raise
            finally:
                self._finish_run(course, state)
        return {"done": self.summary.exit_status, "interrupted": stop.exit_status}.get(state, 1)

    def _create_run_state(self) -> RunState:
        """What is known before the first batch: if a run goes on, what it had found out."""
        course = RunState.from_config(self.config)
        before = load_manifest(self.output) if self.resume else {}
        if before:
            check_same_settings(self.output, before, self.document)
        taken = before.get("precision")
        if course.precision is None and taken in ("fp32", "bf16"):
            course.precision = taken
        return course

    @cached_property
    def _run_key(self) -> str:
        return compute_run_key(self.document)

    @cached_property
    def _resume_plan(self) -> ResumePlan:
        return ResumePlan.from_sources(
            self.sources, len(self.config.requests), self._compute_file_key
        )

    def _compute_file_key(self, path: str) -> str | None:
        stamp = find_file_stamp(Path(path))
        return compute_result_key(self._run_key, stamp) if stamp else None

    def _prune_log(self) -> None:
        with lock_log(self.output / RESULTS_FILE):
            self.done_paths.update(
                prune_log(self.output, self._resume_plan, self.summary.add_earlier_line)
            )

    def _explain_images(
        self, run_state: RunState, stop: StopFlag, write_line: Callable[[Mapping[str, Any]], None]
    ) -> None:
        show = create_result_printer(
            self.format, self.sources, [r.method.name for r in self.config.requests]
        )
        watch = RunCallbacks(
            run_state,
            lambda item: str(item.path) in self.done_paths,
            lambda: stop.is_set,
            self.timer,
        )
        told = 0
        waiting = len(self.sources) - len(self.done_paths)
        with show_progress("explaining", waiting, self.format == "quiet") as bar:
            job = replace(self.config, report_progress=bar.update_inner)
            for outcome in run_pipeline(job, self.sources, self.finish_result, watch):
                line = outcome_to_json(outcome, job.model.name, self._run_key)
                write_line(line)
                before = self.summary.last_path
                well = self.summary.add_line(line)
                show(line)
                bar.advance(int(self.summary.last_path != before))
                stop.is_set |= self.stop_on_error and not well
                for note in run_state.notes[told:]:
                    print_notice(note)
                told = len(run_state.notes)

    def _finish_run(self, run_state: RunState, state: str) -> None:
        """Leave the folder in order, and say what was done; whatever has happened."""
        if not self.summary.has_lines:  # nothing was done: no run to be kept
            remove_manifest(self.output)
            return
        seconds = self.timer.seconds
        try:
            if self.resume and state == "done":
                sort_log(self.output, self._resume_plan.index_by_path)
            ended = create_manifest_ending(run_state, self.summary.counts, seconds)
            write_manifest(self.output, {**self.document, "state": state, **ended})
        except OutputError as error:
            if state == "done":
                print_error(error)
        default = partial(find_model_default_layer, self.config.model)
        self.summary.print_summary(self.output, seconds, lambda: default().name)
        if state != "done":
            print_error(f"{state}; to go on: {self._format_resume_command()}")

    def _format_resume_command(self) -> str:
        """The command that goes on with this run."""
        given = [a for a in sys.argv[1:] if a not in ("--overwrite", "--resume")]
        command = shlex.join(["camcli", *given, "--resume"])
        if len(command) > MAX_COMMAND_CHARACTERS:
            return "the same command with --resume"
        return to_one_line(command)
