"""`camcli methods`: every method, what it needs, and where it comes from."""

from __future__ import annotations

import inspect
import json
from typing import Annotated, Any, Literal

from typer import Argument, Option

from camcli.cli import console
from camcli.methods import METHODS, Method, get


def methods(
    name: Annotated[str | None, Argument(metavar="[NAME]", help="One method, in full.")] = None,
    format_: Annotated[Literal["table", "jsonl"], Option("--format")] = "table",
) -> int:
    """Every method: what it needs, which networks it suits, and its paper."""
    if name:
        console.emit(_in_full(get(name)))
        return 0
    rows = [_row(method) for method in METHODS.values()]
    if format_ == "jsonl":
        for row in rows:
            console.emit(json.dumps(row))
        return 0
    cells = [
        [row[key] if isinstance(row[key], str) else ", ".join(row[key]) for key in row]
        for row in rows
    ]
    console.table([list(rows[0]), *cells])
    return 0


def _row(method: Method) -> dict[str, Any]:
    return {
        "method": method.name,
        "needs": list(method.needs),
        "works on": list(method.works_on),
        "threshold": str(method.threshold),
        "paper": method.paper,
    }


def _choices(method: Method, key: str) -> str:
    return f"  (of {', '.join(method.choices[key])})" if key in method.choices else ""


def _in_full(method: Method) -> str:
    options = [
        f"  --set {key}={value}{_choices(method, key)}" for key, value in method.options.items()
    ]
    return "\n".join(
        [
            method.name,
            "",
            inspect.getdoc(method.function) or "",
            "",
            f"Needs: {', '.join(method.needs)}",
            f"Works on: {', '.join(method.works_on)}",
            f"Box threshold: {method.threshold}",
            f"Paper: {method.paper}",
            *(["Options:", *options] if options else []),
        ]
    )
