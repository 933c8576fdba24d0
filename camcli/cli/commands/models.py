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
    import timm
    from torchvision import models as of_torchvision

    from camcli.models.zoo.architectures import TORCHVISION_PREFIX
    from camcli.models.zoo.builtin import BUILTIN_NAMES
    from camcli.models.zoo.pretrained import can_load_offline

    others = [f"{TORCHVISION_PREFIX}{n}" for n in of_torchvision.list_models(module=of_torchvision)]
    known = [*BUILTIN_NAMES, *(n for n in timm.list_models() if n not in BUILTIN_NAMES), *others]
    wanted = pattern if pattern and "*" in pattern else f"*{pattern or ''}*"
    names = fnmatch.filter(known, wanted)
    if not names:
        raise UsageError(f"no model matches {pattern!r}{format_suggestion(str(pattern), known)}")
    for name in names:
        if not loadable or can_load_offline(name):
            print_data(f"{name}  (embedded)" if name in BUILTIN_NAMES else name)
    return 0
