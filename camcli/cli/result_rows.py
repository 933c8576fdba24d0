"""What `camcli explain` says of each image: a row for people, a line of JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from camcli.cli.console import is_jsonl_output, print_data
from camcli.cli.options import OutputFormat
from camcli.core.errors import to_one_line
from camcli.core.types import Failure, ImageSource, format_class_label


def create_result_printer(
    output_format: OutputFormat,
    sources: Sequence[ImageSource | Failure],
    method_names: Sequence[str],
) -> Callable[[Mapping[str, Any]], None]:
    """What is done with each line of results.jsonl besides writing it there."""
    if output_format == "quiet":
        return lambda line: None
    if is_jsonl_output(output_format):
        return lambda line: print_data(json.dumps(line))
    width = min(40, max(len(to_one_line(item.name)) for item in sources))
    widest = max(9, *map(len, method_names))
    return lambda line: _print_result_rows(line, width, widest)


def _print_result_rows(line: Mapping[str, Any], name_width: int, method_width: int) -> None:
    for row in _iter_result_rows(line, name_width, method_width):
        print_data(row)


def _iter_result_rows(line: Mapping[str, Any], name_width: int, method_width: int) -> Iterator[str]:
    for found in line.get("explanations", ()):
        boxes = ["{x1},{y1}-{x2},{y2}".format(**box) for box in found["boxes"]]
        where = boxes[0] + (f" +{len(boxes) - 1}" if boxes[1:] else "") if boxes else "-"
        rivals = [rival["class_name"] for rival in found.get("against", ())]
        name, label = (
            to_one_line(line["image"]),
            to_one_line(format_class_label(found["class_name"], rivals)),
        )
        status = "" if found["map_status"] == "ok" else f"  {found['map_status']}"
        said = f"{line['method']:{method_width}} {label:24.24} {found['score'] or 0:5.2f}"
        yield f"{name:{name_width}}  {said}  {where}{status}"
