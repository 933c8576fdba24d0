"""A run's results.jsonl: a line an outcome, as `results.schema.json` has it.

Knows nothing of methods or pictures.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from camcli.core.types import Explanation, Failed, Result, Sample, Stamp

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
