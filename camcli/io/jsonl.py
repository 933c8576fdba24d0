"""JSON lines: a locked log file to which a run appends whole lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from camcli.core.errors import FULL_ERRNOS, OutputError, StorageError


def to_json_line(document: Mapping[str, Any]) -> str:
    """One line of JSON; only ASCII if a name could control a terminal, or is not valid Unicode."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else json.dumps(document, allow_nan=False)


@dataclass(slots=True)
class ResultsLog:
    """A file of JSON lines that one run at a time may add to; use it with `with`.

    The run holds a lock on the file until it closes the log. A log without lines is deleted then,
    because a run that did nothing leaves nothing behind.
    """

    path: Path
    _file: FileIO

    @classmethod
    def open(cls, path: Path, *, overwrite: bool = False, resume: bool = False) -> ResultsLog:
        """Start a log; with `resume`, continue an existing log.

        A file or link of that name is an error; `overwrite` replaces it. camcli never writes
        through a link to a new log. Raises OutputError, also while another run has the log.
        """
        with _report_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                with lock_log(path):
                    path.unlink(missing_ok=True)
            if resume and path.is_symlink():  # dangling: pruning replaced a link to a log
                path.unlink()
            file = path.open("ab" if resume else "xb", buffering=0)
            try:
                _lock_file(file, path)
            except OutputError:
                file.close()
                raise
        return cls(path, file)

    def append(self, document: Mapping[str, Any]) -> None:
        """Add a whole line, or nothing at all. Raises StorageError."""
        _append_line(self._file, self.path, document)

    def close(self) -> None:
        """Release the lock, and delete a log without lines."""
        with suppress(OSError):  # `append` has already reported a file that is gone
            if not self.path.stat().st_size:
                self.path.unlink()
        self._file.close()

    def __enter__(self) -> ResultsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def lock_log(path: Path) -> Iterator[None]:
    """Lock a log, if it exists, so that no other run writes while it is shortened.

    Raises OutputError while another run has the log, and for every OSError inside the context.
    """
    with _report_os_errors(path), ExitStack() as stack:
        if path.is_file():
            _lock_file(stack.enter_context(path.open("rb", buffering=0)), path)
        yield


@contextmanager
def _report_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = StorageError if error.errno in FULL_ERRNOS else OutputError
        raise kind(f"cannot write to {path.parent}: {error.strerror}") from None


def _lock_file(file: FileIO, path: Path) -> None:
    """Lock an open file until it is closed, if the system can lock files."""
    with suppress(ImportError):
        from fcntl import LOCK_EX, LOCK_NB, flock

        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is writing to {path.parent} just now") from None
        except OSError:  # this file system has no locks
            return
        if not _is_same_file(file, path):  # another run has replaced it since it was opened
            raise OutputError(f"another run is writing to {path.parent} just now")


def _is_same_file(file: FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _append_line(file: FileIO, path: Path, document: Mapping[str, Any]) -> None:
    line = f"{to_json_line(document)}\n".encode()
    before = os.fstat(file.fileno())
    try:
        written = file.write(line)
        if written != len(line):  # the next attempt raises the reason
            file.write(line[written:])
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(file.fileno(), before.st_size)
        raise StorageError(f"cannot write {path}: {error.strerror}") from None
    if not before.st_nlink:
        raise StorageError(f"{path} was removed while the run was writing to it")
