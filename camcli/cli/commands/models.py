"""`camcli models`: the names that --model takes."""

from __future__ import annotations

import fnmatch
from typing import Annotated

from typer import Argument, Option

from camcli.cli.console import print_data
from camcli.core.errors import UsageError, format_suggestion


def models(
    pattern: Annotated[
        str | None, Argument(metavar="[PATTERN]", help="A part of a name, or a glob: vit*384.")
    ] = None,
    loadable: Annotated[
        bool, Option("--loadable", help="Only those whose weights are on this machine.")
    ] = False,
) -> int:
    """The embedded ones, then timm's names, then torchvision's."""
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
