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

from camcli.core.errors import OutputError, one_line

EVERY = 30.0  # seconds between two lines of progress in a log
LONGEST = 1500  # characters of a complaint: names from elsewhere can be of any length
TAIL = 300  # and of its end, which says why


def prepare() -> None:
    """Names of any spelling can be printed, whatever the locale; a closed stream is silent."""
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape", newline="")  # file names may be any bytes


def emit(text: str) -> None:
    """A line of data. A reader that has closed the pipe has had enough; the files go on.

    Raises OutputError when what it is written to is full.
    """
    try:
        print(text, flush=True)  # noqa: T201 - the one place where data is printed
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def complain(text: object) -> None:
    """One line on standard error."""
    line = one_line(text)
    say(f"camcli: {line if len(line) < LONGEST else f'{line[:LONGEST]} … {line[-TAIL:]}'}")


def say(text: str) -> None:
    """Words for people."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one place for people
    except OSError:
        _discard(sys.stderr)


def note(text: str) -> None:
    """What was chosen where the user did not; nothing if nothing was."""
    if text:
        say(one_line(text))


def close() -> None:
    """Flush what is left, with no complaint about a reader that has gone."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard(sys.stdout)


def _discard(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def table(rows: Sequence[Sequence[str]]) -> None:
    """Rows under a head, in columns as wide as they need to be."""
    clean = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        emit("  ".join(cells).rstrip())


def for_machines(chosen: str) -> bool:
    """Whether standard output is to be JSON Lines: as asked, or as it is no terminal."""
    return chosen == "jsonl" or (chosen == "auto" and not sys.stdout.isatty())


@dataclass(frozen=True, slots=True)
class Bar:
    """What a run tells of how far it is: `advance(count)` images, `inner(done, of)` of one."""

    advance: Callable[..., None] = lambda _count=1: None
    inner: Callable[[int, int], None] = lambda _done, _of: None


@dataclass(slots=True)
class _Plain:
    """Progress as a line now and then, for a log."""

    doing: str
    total: int
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)
    done: int = 0

    def advance(self, count: int = 1) -> None:
        self.done += count
        now = time.monotonic()
        if self.done and now - self.told >= EVERY:
            self.told = now
            rate = self.done / (now - self.began)
            left = timedelta(seconds=round((self.total - self.done) / rate))
            say(f"{self.doing} {self.done} of {self.total}, {rate:.1f} a second, {left} left")


@contextmanager
def progress(doing: str, total: int, quiet: bool) -> Iterator[Bar]:
    """A bar on standard error, where rows on a terminal do not already show the progress.

    What a slow method does for one batch has a bar of its own while it lasts. Where standard error
    is no terminal there is a line now and then.
    """
    if quiet:
        yield Bar()
        return
    if not sys.stderr.isatty():
        yield Bar(_Plain(doing, total).advance)
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
        task = bar.add_task(doing, total=total, visible=not rows, rate="")
        within = bar.add_task("  changed inputs", visible=False, rate="")

        def advance(count: int = 1) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=count, rate=f"{speed:.1f} a second" if speed else "")

        def inner(done: int, of: int) -> None:
            bar.update(within, completed=done, total=of, visible=done < of)
            bar.refresh()

        yield Bar(advance, inner)
