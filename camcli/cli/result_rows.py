"""What `camcli explain` says of each image: a row for people, a line of JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from camcli.cli import console, options
from camcli.core.errors import one_line
from camcli.core.types import Failed, Source, versus


def shower(
    chosen: options.Format, found: Sequence[Source | Failed], methods: Sequence[str]
) -> Callable[[Mapping[str, Any]], None]:
    """What is done with each line of results.jsonl besides writing it there."""
    if chosen == "quiet":
        return lambda line: None
    if console.for_machines(chosen):
        return lambda line: console.emit(json.dumps(line))
    width = min(40, max(len(one_line(item.name)) for item in found))
    widest = max(9, *map(len, methods))
    return lambda line: _show_rows(line, width, widest)


def _show_rows(line: Mapping[str, Any], width: int, widest: int) -> None:
    for row in _rows(line, width, widest):
        console.emit(row)


def _rows(line: Mapping[str, Any], width: int, widest: int) -> Iterator[str]:
    for found in line.get("explanations", ()):
        boxes = ["{x1},{y1}-{x2},{y2}".format(**box) for box in found["boxes"]]
        where = boxes[0] + (f" +{len(boxes) - 1}" if boxes[1:] else "") if boxes else "-"
        rivals = [rival["class_name"] for rival in found.get("against", ())]
        name, label = one_line(line["image"]), one_line(versus(found["class_name"], rivals))
        status = "" if found["map_status"] == "ok" else f"  {found['map_status']}"
        said = f"{line['method']:{widest}} {label:24.24} {found['score'] or 0:5.2f}"
        yield f"{name:{width}}  {said}  {where}{status}"
