"""Folders of runs as `camcli explain` leaves them, made without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def result_line(**changes: Any) -> dict[str, Any]:
    explanation = {
        "class_index": 281,
        "class_name": "tabby",
        "score": 0.5,
        "targets": ["folder"],
        "predicted": False,
        "map_status": "ok",
        "boxes": [{"x1": 1, "y1": 2, "x2": 30, "y2": 20, "score": 0.5}],
        "files": {"map": "a.map.png"},
    }
    return {
        "schema_version": 1,
        "image": "a.jpg",
        "path": "/photos/a.jpg",
        "width": 40,
        "height": 20,
        "status": "ok",
        "model": "net",
        "method": "gradcam",
        "layers": ["last"],
        "threshold": 0.2,
        "explanations": [explanation | changes.pop("explanation", {})],
        "key": "0" * 16,
    } | changes


def write_run(folder: Path, *lines: Any, state: str | None = "done") -> Path:
    folder.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "results.jsonl").write_text("".join(f"{text}\n" for text in texts))
    if state:
        (folder / "run.json").write_text(json.dumps({"state": state}))
    return folder
