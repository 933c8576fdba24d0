"""Print the results of `camcli explain`: rows for people, or lines of JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from camcli.cli.console import is_jsonl_output, print_data
from camcli.cli.options import OutputFormat
from camcli.core.errors import to_one_line
from camcli.core.layer_names import format_layer_list
from camcli.core.types import Failure, ImageSource, format_class_label

if TYPE_CHECKING:
    from camcli.engine.request import Request

MAX_NAME_WIDTH = 40  # characters of the first column
MIN_METHOD_WIDTH = 9


def create_result_printer(
    output_format: OutputFormat,
    sources: Sequence[ImageSource | Failure],
    requests: Sequence[Request],
) -> Callable[[Mapping[str, Any]], None]:
    """Return the function that prints a line of results.jsonl in this format.

    The table tells the layers where a method has several rows.
    """
    if output_format == "quiet":
        return lambda line: None
    if is_jsonl_output(output_format):
        return lambda line: print_data(json.dumps(line))
    name_width = min(
        MAX_NAME_WIDTH, max((len(to_one_line(item.name)) for item in sources), default=0)
    )
    labels = _create_row_labels(requests)
    label_width = max(MIN_METHOD_WIDTH, *map(len, labels.values()))

    def print_rows(line: Mapping[str, Any]) -> None:
        image = f"{to_one_line(line['image']):{name_width}}"
        for shown in line.get("explanations", ()):
            label = labels[line["method"], tuple(line["layers"])]
            print_data(f"{image}  {label:{label_width}} {_format_explanation(shown)}")

    return print_rows


def _create_row_labels(requests: Sequence[Request]) -> dict[tuple[str, tuple[str, ...]], str]:
    """The method of each request, by method and layers; with the layers, if these tell it apart."""
    counts = Counter(request.method.name for request in requests)
    width = max(map(len, counts))
    labels = {}
    for request in requests:
        name, layers = request.method.name, request.source_layers
        shown = f"{name:{width}} {format_layer_list(layers)}" if max(counts.values()) > 1 else name
        labels[name, tuple(layer.name for layer in layers)] = shown
    return labels


def _format_explanation(shown: Mapping[str, Any]) -> str:
    rivals = [rival["class_name"] for rival in shown.get("against", ())]
    is_low = shown.get("direction") == "low"
    label = to_one_line(format_class_label(shown["class_name"] or "-", rivals, is_low=is_low))
    status = "" if shown["map_status"] == "ok" else f"  {shown['map_status']}"
    return f"{label:24.24} {_format_score(shown):>5}  {_format_boxes(shown['boxes'])}{status}"


def _format_score(shown: Mapping[str, Any]) -> str:
    return "-" if shown["class_name"] is None else f"{shown['score'] or 0:.2f}"


def _format_boxes(boxes: Sequence[Mapping[str, Any]]) -> str:
    if not boxes:
        return "-"
    first = "{x1},{y1}-{x2},{y2}".format(**boxes[0])
    return first + (f" +{len(boxes) - 1}" if len(boxes) > 1 else "")
