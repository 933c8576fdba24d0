"""Printing: data to standard output, words for people to standard error."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from camcli.core.errors import OutputError, to_one_line

LOG_INTERVAL_SECONDS = 30.0  # seconds between two lines of progress in a log
MAX_ERROR_CHARACTERS = 1500  # characters of a complaint: names from elsewhere can be of any length
ERROR_TAIL_CHARACTERS = 300  # and of its end, which says why


def prepare_streams() -> None:
    """Names of any spelling can be printed, whatever the locale; a closed stream is silent."""
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape", newline="")  # file names may be any bytes


def print_data(text: str) -> None:
    """A line of data. A reader that has closed the pipe has had enough; the files go on.

    Raises OutputError when what it is written to is full.
    """
    try:
        print(text, flush=True)  # noqa: T201 - the one place where data is printed
    except BrokenPipeError:
        _discard_stream(sys.stdout)
    except OSError as error:
        _discard_stream(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def print_error(text: object) -> None:
    """One line on standard error."""
    line = to_one_line(text)
    if len(line) >= MAX_ERROR_CHARACTERS:
        line = f"{line[:MAX_ERROR_CHARACTERS]} … {line[-ERROR_TAIL_CHARACTERS:]}"
    print_info(f"camcli: {line}")


def print_info(text: str) -> None:
    """Words for people."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place for people
    except OSError:
        _discard_stream(sys.stderr)


def print_notice(text: str) -> None:
    """What was chosen where the user did not; nothing if nothing was."""
    if text:
        print_info(to_one_line(text))


def flush_output() -> None:
    """Flush what is left, with no complaint about a reader that has gone."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stream(sys.stdout)


def _discard_stream(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows under a head, in columns as wide as they need to be."""
    clean = [[to_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_data("  ".join(cells).rstrip())


def is_jsonl_output(output_format: str) -> bool:
    """Whether standard output is to be JSON Lines: as asked, or as it is no terminal."""
    return output_format == "jsonl" or (output_format == "auto" and not sys.stdout.isatty())


@dataclass(frozen=True, slots=True)
class ProgressReporter:
    """What a run tells of how far it is: `advance(count)` images, `inner(done, of)` of one."""

    advance: Callable[..., None] = lambda _count=1: None
    update_inner: Callable[[int, int], None] = lambda _done, _of: None


@dataclass(slots=True)
class _LogProgress:
    """Progress as a line now and then, for a log."""

    description: str
    total: int
    start_time: float = field(default_factory=time.monotonic)
    last_log_time: float = field(default_factory=time.monotonic)
    done_count: int = 0

    def advance(self, count: int = 1) -> None:
        self.done_count += count
        now = time.monotonic()
        if self.done_count and now - self.last_log_time >= LOG_INTERVAL_SECONDS:
            self.last_log_time = now
            rate = self.done_count / (now - self.start_time)
            left = timedelta(seconds=round((self.total - self.done_count) / rate))
            print_info(
                f"{self.description} {self.done_count} of {self.total}, "
                f"{rate:.1f} a second, {left} left"
            )


@contextmanager
def show_progress(description: str, total: int, quiet: bool) -> Iterator[ProgressReporter]:
    """A bar on standard error, where rows on a terminal do not already show the progress.

    What a slow method does for one batch has a bar of its own while it lasts. Where standard error
    is no terminal there is a line now and then.
    """
    if quiet:
        yield ProgressReporter()
        return
    if not sys.stderr.isatty():
        yield ProgressReporter(_LogProgress(description, total).advance)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, redirect_stdout=False, transient=True) as bar:
        rows = sys.stdout.isatty()
        task = bar.add_task(description, total=total, visible=not rows, rate="")
        within = bar.add_task("  changed inputs", visible=False, rate="")

        def advance(count: int = 1) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=count, rate=f"{speed:.1f} a second" if speed else "")

        def inner(done: int, of: int) -> None:
            bar.update(within, completed=done, total=of, visible=done < of)
            bar.refresh()

        yield ProgressReporter(advance, inner)
