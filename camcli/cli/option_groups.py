"""Options that several commands share, declared once as a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import Parameter, Signature
from typing import Any, get_type_hints

KEYWORD = Parameter.KEYWORD_ONLY


def expand_option_groups(command: Callable[..., int]) -> Callable[..., int]:
    """Give each field of a command's dataclass parameters an option of its own.

    Typer reads options from a signature. In `def explain(inputs: ..., model: ModelArguments)` the
    fields of ModelArguments take the place of `model`, and a ModelArguments is built of their
    values when the command runs.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint)}

    def run(**values: Any) -> int:
        return command(**_collect_groups(groups, values))

    signature = inspect.signature(command)
    expanded = [
        option
        for parameter in signature.parameters.values()
        for option in _expand_parameter(parameter, hints[parameter.name])
    ]
    run.__signature__ = Signature(expanded)  # type: ignore[attr-defined]  # inspect reads it
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def _collect_groups(groups: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(values)
    built = {
        name: group(**{field.name: rest.pop(field.name) for field in fields(group)})
        for name, group in groups.items()
    }
    return rest | built


def _expand_parameter(parameter: Parameter, hint: Any) -> Iterator[Parameter]:
    if not is_dataclass(hint):
        yield parameter.replace(annotation=hint, kind=KEYWORD)
        return
    hints = get_type_hints(hint, include_extras=True)
    for field in fields(hint):
        yield Parameter(
            field.name, KEYWORD, default=_find_default(field), annotation=hints[field.name]
        )


def _find_default(field: Field[Any]) -> Any:
    return Parameter.empty if field.default is MISSING else field.default
