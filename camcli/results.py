"""A run's results.jsonl: a line an outcome, as `results.schema.json` has it.

Knows nothing of methods or pictures.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

from camcli.errors import OutputError, StorageError
from camcli.records import Explanation, Failed, Result, Sample, Stamp

SCHEMA_VERSION = 1
FILE = "results.jsonl"


def describe(outcome: Result | Failed, model: str, run: str) -> dict[str, Any]:
    """One line of results.jsonl: what a method found in an image, or why there is nothing.

    `run` is the digest of what the run's results are made of besides images.
    """
    if isinstance(outcome, Failed):
        return failure(outcome) | {"model": model}
    return _success(outcome, model) | {"key": key(run, outcome.sample.stamp)}


def key(run: str, stamp: Stamp | None) -> str:
    """What a result was made of: a run's settings and weights, and an image file as it was."""
    return sha256(f"{run} {stamp}".encode()).hexdigest()[:16]


def about(sample: Sample) -> dict[str, Any]:
    """What every line says first of an image that could be read."""
    return {
        "schema_version": SCHEMA_VERSION,
        "image": sample.source.name,
        "path": str(sample.source.path),
        "width": sample.view.width,
        "height": sample.view.height,
        "status": "ok",
    }


def failure(failed: Failed) -> dict[str, Any]:
    """The line of an image that there is nothing of."""
    return {
        "schema_version": SCHEMA_VERSION,
        "image": failed.name,
        "path": failed.path,
        "status": "failed",
        "error": failed.reason,
    }


def _success(result: Result, model: str) -> dict[str, Any]:
    line = {
        **about(result.sample),
        "model": model,
        "method": result.method,
        "layers": list(result.layers),
        "threshold": result.threshold,
        "explanations": [
            describe_class(shown) | {"files": files}
            for shown, files in zip(result.explanations, result.files, strict=True)
        ],
    }
    return line | ({"head": result.head} if result.head else {})


def describe_class(shown: Explanation) -> dict[str, Any]:
    """What was found for one class, without the files that show it."""
    failing = {p.name: p.status for p in (*shown.layers, *shown.parts) if p.status != "ok"}
    return {
        "class_index": shown.class_index,
        "class_name": shown.class_name,
        **({"against": _named(shown)} if shown.against else {}),
        "score": round(shown.score, 6) if math.isfinite(shown.score) else None,
        "map_status": shown.fused.status,
        **({"layer_status": failing} if failing else {}),
        "boxes": [asdict(box) for box in shown.boxes],
    }


def _named(shown: Explanation) -> list[dict[str, Any]]:
    return [{"class_index": index, "class_name": name} for index, name in shown.against]


def to_json(document: Mapping[str, Any]) -> str:
    """One line of JSON; all in ASCII where a name could steer a terminal, or is not Unicode."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else json.dumps(document, allow_nan=False)


@contextmanager
def opened(
    output: Path, overwrite: bool, name: str = FILE, mend: Callable[[], None] | None = None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a run's list: what is yielded writes a line at once. Raises OutputError.

    A file or a link that is there is replaced, never written through; or, once it is made whole by
    `mend`, added to. No other run can write to it meanwhile.
    """
    path = output / name
    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            if path.is_file() and (overwrite or mend):
                _claim(stack.enter_context(path.open("rb", buffering=0)), output)
            if overwrite:
                path.unlink(missing_ok=True)
            if mend:
                mend()
            file = stack.enter_context(path.open("ab" if mend else "xb", buffering=0))
        except OSError as error:
            raise OutputError(f"cannot write to {output}: {error.strerror}") from None
        _claim(file, output)
        try:
            yield partial(_append, file, path)
        finally:
            with suppress(OSError):  # it has been said
                if not path.stat().st_size:  # nothing was done: no run to be kept
                    path.unlink()


def _claim(file: FileIO, output: Path) -> None:
    """Until the file is closed it is this run's; where the system has locks for files."""
    with suppress(ImportError):
        from fcntl import LOCK_EX, LOCK_NB, flock

        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another run is writing to {output} just now") from None
        except OSError:  # a file system without locks
            return


def _append(file: FileIO, path: Path, document: Mapping[str, Any]) -> None:
    """Add a whole line, or nothing of it."""
    line = f"{to_json(document)}\n".encode()
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
