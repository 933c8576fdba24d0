"""`camcli models`: list the names that --model accepts."""

from __future__ import annotations

import fnmatch
from typing import Annotated

from typer import Argument, Option

from camcli.cli.console import print_data
from camcli.cli.declarations import NO_TYPE
from camcli.core.errors import UsageError, format_suggestion


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
            help="List only models whose weights are on this machine.",
        ),
    ] = False,
) -> int:
    """List model names: built-in, timm, torchvision."""
    from camcli.models.zoo.libraries import find_library, list_model_names

    known = list_model_names()
    wanted = pattern if pattern and "*" in pattern else f"*{pattern or ''}*"
    names = fnmatch.filter(known, wanted)
    if not names:
        raise UsageError(f"no model matches {pattern!r}{format_suggestion(str(pattern), known)}")
    for name in names:
        library = find_library(name)
        if not loadable or library.is_cached(name):
            print_data(f"{name}  (embedded)" if library.ships_weights else name)
    return 0
