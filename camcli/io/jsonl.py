"""JSON lines: a locked log to which whole lines are appended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from camcli.core.errors import OutputError, StorageError
from camcli.io.results import RESULTS_FILE


def to_json_line(document: Mapping[str, Any]) -> str:
    """One line of JSON; all in ASCII where a name could steer a terminal, or is not Unicode."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else json.dumps(document, allow_nan=False)


@contextmanager
def open_log(
    output: Path,
    overwrite: bool,
    file_name: str = RESULTS_FILE,
    repair: Callable[[], None] | None = None,
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a run's list: what is yielded writes a line at once. Raises OutputError.

    A file or a link that is there is replaced, never written through; or, once it is made whole by
    `mend`, added to. No other run can write to it meanwhile.
    """
    path = output / file_name
    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            if path.is_file() and (overwrite or repair):
                _lock_file(stack.enter_context(path.open("rb", buffering=0)), output)
            if overwrite:
                path.unlink(missing_ok=True)
            if repair:
                repair()
            file = stack.enter_context(path.open("ab" if repair else "xb", buffering=0))
        except OSError as error:
            raise OutputError(f"cannot write to {output}: {error.strerror}") from None
        _lock_file(file, output)
        try:
            yield partial(_append_line, file, path)
        finally:
            with suppress(OSError):  # it has been said
                if not path.stat().st_size:  # nothing was done: no run to be kept
                    path.unlink()


def _lock_file(file: FileIO, output: Path) -> None:
    """Until the file is closed it is this run's; where the system has locks for files."""
    with suppress(ImportError):
        from fcntl import LOCK_EX, LOCK_NB, flock

        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is writing to {output} just now") from None
        except OSError:  # a file system without locks
            return


def _append_line(file: FileIO, path: Path, document: Mapping[str, Any]) -> None:
    """Add a whole line, or nothing of it."""
    line = f"{to_json_line(document)}\n".encode()
    before = os.fstat(file.fileno())
    try:
        written = file.write(line)
        if written != len(line):  # the next attempt says why
            file.write(line[written:])
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(file.fileno(), before.st_size)
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    if not before.st_nlink:
        raise StorageError(f"{path} was removed while the run was writing to it")
