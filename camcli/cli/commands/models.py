"""`camcli models`: list the names that --model accepts."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Option

from camcli.cli.console import print_data, print_info, print_json
from camcli.cli.declarations import NO_TYPE
from camcli.core.errors import UsageError, format_suggestion
from camcli.models.zoo.model_files import CHECKPOINT_SUFFIXES


def models(
    pattern: Annotated[
        str | None,
        Argument(
            metavar="PATTERN",
            help="List only names that contain this text, or match a glob such as vit*384.",
            show_default="all",
        ),
    ] = None,
    loadable: Annotated[
        bool,
        Option(
            "--loadable",
            metavar=NO_TYPE,
            help="List only models whose weights are on this machine, and weights files in this"
            " folder.",
        ),
    ] = False,
    format_: Annotated[
        Literal["table", "json"],
        Option("--format", help="Print a name on each line, or one JSON document."),
    ] = "table",
) -> int:
    """List model names: built-in, timm, torchvision."""
    from camcli.models.zoo.libraries import list_model_names

    known = list_model_names()
    wanted = pattern if pattern and "*" in pattern else f"*{pattern or ''}*"
    names = fnmatch.filter(known, wanted)
    if not names:
        raise UsageError(f"no model matches {pattern!r}{format_suggestion(str(pattern), known)}")
    rows = list(_iter_rows(names, loadable=loadable))
    if loadable:
        files = fnmatch.filter(_list_weights_files(), wanted)
        rows += [{"model": name, "embedded": False, "file": True} for name in files]
    if format_ == "json":
        print_json(rows)
        return 0
    for row in rows:
        note = "  (a file here)" if row["file"] else "  (embedded)" if row["embedded"] else ""
        print_data(f"{row['model']}{note}")
    print_info(_format_summary(len(rows), pattern, loadable=loadable))
    return 0


def _iter_rows(names: Sequence[str], *, loadable: bool) -> Iterator[dict[str, Any]]:
    """A row for each name: whether camcli contains its weights, and whether it is a file here."""
    from camcli.models.zoo.libraries import find_library

    for name in names:
        library = find_library(name)
        if not loadable or library.is_cached(name):
            yield {"model": name, "embedded": library.ships_weights, "file": False}


def _list_weights_files() -> list[str]:
    """The files in the working directory that have the suffix of weights, not looked into."""
    return sorted(
        path.name for path in Path().iterdir() if path.name.lower().endswith(CHECKPOINT_SUFFIXES)
    )


def _format_summary(count: int, pattern: str | None, *, loadable: bool) -> str:
    parts = [f"{count} model{'s' * (count != 1)}"]
    parts += [] if pattern else ["`camcli models vit` lists those with vit in the name"]
    parts += [] if loadable else ["--loadable lists those on this machine"]
    return "; ".join(parts)
