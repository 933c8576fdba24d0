"""`camcli methods`: list the methods with their inputs, costs and papers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal

from typer import Argument, Option

from camcli.cli.completions import complete_methods
from camcli.cli.console import print_data, print_error, print_json, print_table
from camcli.core.errors import UsageError
from camcli.methods.plugins import list_installed_methods, load_installed_method
from camcli.methods.registry import METHODS, Method, find_method


def methods(
    name: Annotated[
        str | None,
        Argument(
            metavar="NAME",
            help="Show everything about this method; name your own as package.module:function.",
            show_default="a table of all methods",
            autocompletion=complete_methods,
        ),
    ] = None,
    format_: Annotated[
        Literal["table", "json", "jsonl", "markdown"],
        Option(
            "--format",
            help="Print a table, one JSON document, JSON lines, or the table of the documentation.",
        ),
    ] = "table",
) -> int:
    """List the methods: inputs, network types, cost and paper."""
    if name:
        _print_method(find_method(name), format_)
        return 0
    rows = [_create_method_row(method) for method in _list_methods()]
    if format_ == "json":
        print_json(rows)
    elif format_ == "jsonl":
        for row in rows:
            print_data(json.dumps(row))
    elif format_ == "markdown":
        for line in _format_markdown(rows):
            print_data(line)
    else:
        cells = [[_format_cell(row, key) for key in row if key != "what"] for row in rows]
        print_table([[key for key in rows[0] if key != "what"], *cells])
    return 0


def _print_method(method: Method, format_: str) -> None:
    if format_ == "json":
        print_json(_create_method_document(method))
    elif format_ == "jsonl":
        print_data(json.dumps(_create_method_document(method)))
    else:
        print_data(_format_method(method))


def _create_method_document(method: Method) -> dict[str, Any]:
    """All that camcli knows of a method, for programs."""
    return {
        **_create_method_row(method),
        "inputs": list(method.input_names),
        "options": dict(method.options),
        "choices": {key: list(values) for key, values in method.choices.items()},
        "description": inspect.getdoc(method.function) or "",
    }


def _list_methods() -> list[Method]:
    """camcli's methods, then methods of installed packages; print an error for unloadable ones."""
    found = list(METHODS.values())
    for entry_point in list_installed_methods():
        try:
            found.append(load_installed_method(entry_point))
        except UsageError as error:
            print_error(error)
    return found


def load_method_costs() -> dict[str, float]:
    """The cost of each method in forward passes, as benchmarks/costs.py measured it."""
    text = (files("camcli.methods") / "costs.json").read_text(encoding="utf-8")
    found: dict[str, float] = json.loads(text)
    return found


def _create_method_row(method: Method) -> dict[str, Any]:
    return {
        "method": method.name,
        "what": _read_summary(method),
        "family": method.family,
        "needs": list(method.costs),
        "works on": list(method.works_on),
        "of the class": method.class_specific,
        "cost": load_method_costs().get(method.name),
        "boxes above": method.threshold,
        "boxes above, refined": method.refined_threshold,
        "paper": method.paper,
    }


def _read_summary(method: Method) -> str:
    """The first line of a method's docstring, without the method's name."""
    first = (inspect.getdoc(method.function) or "").partition("\n")[0]
    return (first.partition(": ")[2] or first).rstrip(".")


def _format_cell(row: Mapping[str, Any], key: str) -> str:
    value = row[key]
    if value is None:
        return "not measured" if key == "cost" else "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _format_markdown(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table; the names link to the papers."""
    keys = [key for key in rows[0] if key != "paper"]
    lines = [f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
    for row in rows:
        name = f"`{row['method']}`"
        shown = {**row, "method": f"[{name}]({row['paper']})" if row["paper"] else name}
        lines.append(f"| {' | '.join(_format_cell(shown, key) for key in keys)} |")
    return lines


def _format_choices(method: Method, key: str) -> str:
    return f"  (of {', '.join(method.choices[key])})" if key in method.choices else ""


def _format_method(method: Method) -> str:
    options = [
        f"  --set {key}={value}{_format_choices(method, key)}"
        for key, value in method.options.items()
    ]
    row = _create_method_row(method)
    unit = {None: "", 1: " forward pass"}.get(row["cost"], " forward passes")
    return "\n".join(
        [
            method.name,
            "",
            inspect.getdoc(method.function) or "",
            "",
            f"Family: {method.family}",
            f"Needs: {', '.join(method.input_names)} ({', '.join(method.costs)})",
            f"Works on: {', '.join(method.works_on)}",
            f"Of the class: {_format_cell(row, 'of the class')}",
            f"Cost: {_format_cell(row, 'cost')}{unit}",
            f"Box threshold: {method.threshold}",
            f"Box threshold after --refine affinity: {method.refined_threshold}",
            f"Paper: {_format_cell(row, 'paper')}",
            *(["Options:", *options] if options else []),
        ]
    )
