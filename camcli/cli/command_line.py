"""The options of a command as arguments again, for a process that repeats it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from typer import Context


def format_options(context: Context, left_out: Collection[str]) -> list[str]:
    """`--name=value` for each option that the user set, but for those left out by name."""
    given = context.params
    chosen = [
        option
        for option in context.command.params
        if option.param_type_name == "option" and option.name not in left_out
    ]
    return [text for option in chosen for text in _format_option(option, given[option.name])]


def _format_option(option: Any, value: Any) -> list[str]:
    name = max(option.opts, key=len)
    if value is None or value is False:
        return []
    if value is True:
        return [name]
    values = value if isinstance(value, (list, tuple)) else [value]
    return [f"{name}={each}" for each in values]
