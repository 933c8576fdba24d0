"""A run of `camcli explain` from its first image to its summary; and again, where it was broken."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from camcli.cli import console
from camcli.cli.interrupts import Stop, heeded
from camcli.cli.options import Format
from camcli.cli.result_rows import shower
from camcli.cli.summary import Tally
from camcli.core.concurrency import Clock
from camcli.core.errors import OutputError, one_line
from camcli.core.types import Failed, Result, Source
from camcli.engine import plan
from camcli.io import jsonl, results
from camcli.runs import manifest, pipeline
from camcli.runs import resume as earlier
from camcli.runs.config import Course, Job

LONGEST = 300  # characters of a command that is repeated to the user


@dataclass(frozen=True)
class Run:
    """Images to explain, and what becomes of them.

    `finish` writes the files of a result; `document` is run.json as far as it is known.
    """

    job: Job
    found: Sequence[Source | Failed]
    finish: Callable[[Result], Result]
    output: Path
    document: Mapping[str, Any]
    format: Format
    overwrite: bool
    resume: bool
    fragile: bool
    tally: Tally = field(default_factory=Tally)
    clock: Clock = field(default_factory=Clock)
    done: set[str] = field(default_factory=set)

    def go(self) -> int:
        """Explain all that has not been; the exit status."""
        course = self._course()
        mend = self._mend if self.resume else None
        state = "failed"
        with jsonl.opened(self.output, self.overwrite, mend=mend) as write, heeded() as stop:
            manifest.write(self.output, self.document)
            try:
                self._explain(course, stop, write)
                state = "interrupted" if stop.signal else "stopped" if stop.asked else "done"
            except OutputError as error:
                console.complain(error)
            except KeyboardInterrupt:
                state = "interrupted"
                raise
            finally:
                self._conclude(course, state)
        return {"done": self.tally.status, "interrupted": stop.status}.get(state, 1)

    def _course(self) -> Course:
        """What is known before the first batch: if a run goes on, what it had found out."""
        course = Course.of(self.job)
        before = manifest.read(self.output) if self.resume else {}
        if before:
            manifest.refuse_another(self.output, before, self.document)
        taken = before.get("precision")
        if course.precision is None and taken in ("fp32", "bf16"):
            course.precision = taken
        return course

    @cached_property
    def _key(self) -> str:
        return manifest.run_key(self.document)

    @cached_property
    def _asked(self) -> earlier.Asked:
        return earlier.Asked.of(self.found, len(self.job.requests), self._key_of)

    def _key_of(self, path: str) -> str | None:
        stamp = pipeline.stamped(Path(path))
        return results.key(self._key, stamp) if stamp else None

    def _mend(self) -> None:
        self.done.update(earlier.mend(self.output, self._asked, self.tally.recall))

    def _explain(
        self, course: Course, stop: Stop, write: Callable[[Mapping[str, Any]], None]
    ) -> None:
        show = shower(self.format, self.found, [r.method.name for r in self.job.requests])
        watch = pipeline.Watch(
            course, lambda item: str(item.path) in self.done, lambda: stop.asked, self.clock
        )
        told = 0
        waiting = len(self.found) - len(self.done)
        with console.progress("explaining", waiting, self.format == "quiet") as bar:
            job = replace(self.job, tick=bar.inner)
            for outcome in pipeline.run(job, self.found, self.finish, watch):
                line = results.describe(outcome, job.model.name, self._key)
                write(line)
                before = self.tally.last
                well = self.tally.count(line)
                show(line)
                bar.advance(int(self.tally.last != before))
                stop.asked |= self.fragile and not well
                for note in course.notes[told:]:
                    console.note(note)
                told = len(course.notes)

    def _conclude(self, course: Course, state: str) -> None:
        """Leave the folder in order, and say what was done; whatever has happened."""
        if not self.tally.any:  # nothing was done: no run to be kept
            manifest.remove(self.output)
            return
        seconds = self.clock.seconds
        try:
            if self.resume and state == "done":
                earlier.in_order(self.output, self._asked.places)
            ended = manifest.ended(course, self.tally.counts, seconds)
            manifest.write(self.output, {**self.document, "state": state, **ended})
        except OutputError as error:
            if state == "done":
                console.complain(error)
        default = partial(plan.default_layer, self.job.model)
        self.tally.summarise(self.output, seconds, lambda: default().name)
        if state != "done":
            console.complain(f"{state}; to go on: {self._again()}")

    def _again(self) -> str:
        """The command that goes on with this run."""
        given = [a for a in sys.argv[1:] if a not in ("--overwrite", "--resume")]
        command = shlex.join(["camcli", *given, "--resume"])
        if len(command) > LONGEST:
            return "the same command with --resume"
        return one_line(command)
