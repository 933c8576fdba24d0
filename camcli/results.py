"""A run's results.jsonl: a line an outcome, as `results.schema.json` has it.

Knows nothing of methods or pictures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from camcli.errors import OutputError
from camcli.records import Explanation, Failed, Result, Sample

SCHEMA_VERSION = 1
FILE = "results.jsonl"


def describe(outcome: Result | Failed, model: str) -> dict[str, Any]:
    """One line of results.jsonl: what a method found in an image, or why there is nothing."""
    if isinstance(outcome, Failed):
        return failure(outcome) | {"model": model}
    return _success(outcome, model)


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
    """One line of JSON. Names that are not Unicode (a file system may have such) are escaped."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(document, allow_nan=False)
    return text


@contextmanager
def opened(
    output: Path, overwrite: bool, name: str = FILE
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a run's list: what is yielded writes a line and flushes it. Raises OutputError.

    A file or a link that is there is replaced, never written through.
    """
    path = output / name
    try:
        output.mkdir(parents=True, exist_ok=True)
        if overwrite:
            path.unlink(missing_ok=True)
        file = path.open("x", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write to {output}: {error.strerror}") from None

    def write(document: Mapping[str, Any]) -> None:
        try:
            file.write(f"{to_json(document)}\n")
            file.flush()
        except OSError as error:  # a full disk: the file is whole up to its last line
            raise OutputError(f"cannot write {path}: {error.strerror}") from None

    try:
        yield write
    finally:
        with suppress(OSError):  # it has been said
            file.close()
            if not path.stat().st_size:  # nothing was done: no run to be kept
                path.unlink()
