"""Print: data to standard output, messages for people to standard error."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from camcli.core.errors import StorageError, to_one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

LOG_INTERVAL_SECONDS = 30.0  # between two lines of progress in a log file
MAX_ERROR_CHARACTERS = 1500  # a name in a message can have any length
ERROR_TAIL_CHARACTERS = 300  # kept from the end of a long message, where the reason is


def prepare_streams() -> None:
    """Make any file name printable in any locale, make closed streams silent, and stdin empty."""
    _fill_standard_descriptors()
    sys.stdin = sys.stdin or io.TextIOWrapper(io.FileIO(os.devnull))
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(os.devnull, "w"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(
            errors="surrogateescape", newline=""
        )  # a file name may contain any bytes


def _fill_standard_descriptors() -> None:
    """Open the null device in place of a closed descriptor 0, 1 or 2.

    Otherwise the next file that camcli opens would get this number, and a library that writes to
    standard error would write into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def print_data(text: str) -> None:
    """Print one line of data.

    When the reader closes the pipe, camcli prints nothing more and continues to write files.
    Raises StorageError for other errors, such as a full disk.
    """
    try:
        print(text, flush=True)  # noqa: T201 - the only place that prints data
    except BrokenPipeError:
        _discard_stream(sys.stdout)
    except OSError as error:
        _discard_stream(sys.stdout)
        raise StorageError(f"cannot write to standard output: {error.strerror}") from None


def print_json(document: object) -> None:
    """Print data as one JSON document."""
    print_data(json.dumps(document, indent=2))


def print_error(text: object) -> None:
    """Print an error as one line."""
    line = to_one_line(text)
    if len(line) >= MAX_ERROR_CHARACTERS:
        line = f"{line[:MAX_ERROR_CHARACTERS]} … {line[-ERROR_TAIL_CHARACTERS:]}"
    print_info(f"camcli: {line}")


def print_info(text: str) -> None:
    """Print a message for people."""
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the only place that prints messages
    except OSError:
        _discard_stream(sys.stderr)


def print_notice(text: str) -> None:
    """Print what camcli chose by itself; an empty text prints nothing."""
    if text:
        print_info(to_one_line(text))


def print_renderable(renderable: RenderableType, width: int, height: int) -> None:
    """Print what rich draws for people, in at most `width` x `height` characters."""
    from rich.console import Console

    try:
        Console(stderr=True, highlight=False, width=width, height=height).print(renderable)
    except OSError:
        _discard_stream(sys.stderr)


def flush_output() -> None:
    """Flush standard output, and ignore a reader that is gone."""
    try:
        sys.stdout.flush()
    except OSError:
        _discard_stream(sys.stdout)


def _discard_stream(stream: object) -> None:
    if isinstance(stream, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; the first row is the header."""
    clean = [[to_one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    for row in clean:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print_data("  ".join(cells).rstrip())


def is_jsonl_output(output_format: str) -> bool:
    """Whether to print JSON Lines: by option, or because standard output is not a terminal."""
    return output_format == "jsonl" or (output_format == "auto" and not sys.stdout.isatty())


@dataclass(frozen=True, slots=True)
class ProgressReporter:
    """Callbacks for progress: `advance(count)` images, `update_inner(done, total)` in one.

    Within `pause()` no bar is on the terminal, so that pictures can be drawn there.
    """

    advance: Callable[..., None] = lambda _count=1: None
    update_inner: Callable[[int, int], None] = lambda _done, _total: None
    pause: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(slots=True)
class _LogProgress:
    """Progress as a line every LOG_INTERVAL_SECONDS, for a log file."""

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
    """Show a progress bar on standard error, and a second bar for the changed inputs of a batch.

    The first bar is hidden while standard output is a terminal, because result rows show the
    progress there. Without a terminal on standard error, a line appears every LOG_INTERVAL_SECONDS.
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
    from rich.table import Column

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(40 if console.width >= 80 else None),  # None: what is left of the one line
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )
    with Progress(*columns, console=console, redirect_stdout=False, transient=True) as bar:
        has_rows = sys.stdout.isatty()
        task = bar.add_task(description, total=total, visible=not has_rows, rate="")
        inner_task = bar.add_task("  changed inputs", visible=False, rate="")

        def advance(count: int = 1) -> None:
            speed = bar.tasks[0].speed
            bar.update(task, advance=count, rate=f"{speed:.1f} a second" if speed else "")

        def update_inner(done: int, total: int) -> None:
            bar.update(inner_task, completed=done, total=total, visible=done < total)
            bar.refresh()

        @contextmanager
        def pause() -> Iterator[None]:
            bar.stop()
            try:
                yield
            finally:
                bar.start()

        yield ProgressReporter(advance, update_inner, pause)
