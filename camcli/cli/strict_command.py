"""A command that drops nothing silently, and a group of commands that says what to type."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from typer import BadParameter, TyperException
from typer.core import TyperCommand, TyperGroup

from camcli.core.errors import UsageError, format_suggestion

# What to type for an argument.
EXAMPLES = {
    "INPUT": "photo.jpg",
    "DATASET": "birds/",
    "DATA": "photos/",
    "RUN": "camcli-out/",
    "DIR": "camcli-out/",
    "BASE": "baseline camcli-out",
    "NEW": "baseline camcli-out",
}


class StrictCommand(TyperCommand):
    """A command that refuses an option given twice, unless it is declared as a list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options. Raises UsageError if one repeats, or if the argument is missing."""
        if not ctx.resilient_parsing:  # as while the shell completes a command
            values, _, order = self.make_parser(ctx).parse_args(args=list(args))
            if not any(parameter.is_eager for parameter in order):  # such as --help
                _check_no_repeats(order, self.params)
                _check_arguments(ctx.command_path, values, self.params)
        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            text = error.format_message().rstrip(".")
            raise UsageError(f"{text}{_suggest_choice(error)}") from None


class CommandGroup(TyperGroup):
    """A group that answers a folder in the place of a command with the commands to type."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the name of a command. Raises UsageError if there is none."""
        if not args and not ctx.resilient_parsing:
            raise UsageError(f"{ctx.command_path} needs a command: {self._list_calls(ctx, 'DIR')}")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command. Raises UsageError with what to type instead."""
        try:
            return super().resolve_command(ctx, args)
        except TyperException:
            if ctx.resilient_parsing or format_suggestion(args[0], self.commands):
                raise
            calls = self._list_calls(ctx, args[0])
            raise UsageError(f"{ctx.command_path} has no command {args[0]!r}: {calls}") from None

    def _list_calls(self, ctx: Any, argument: str) -> str:
        calls = (shlex.join([*ctx.command_path.split(), name, argument]) for name in self.commands)
        return f"write {' or '.join(calls)}"


def _suggest_choice(error: BadParameter) -> str:
    """The choice that the user may have meant: `jsonl` for `json`."""
    wrong = re.search(r"'(.*)' is not one of (.*)", error.message)
    return format_suggestion(wrong[1], re.findall(r"'(.*?)'", wrong[2])) if wrong else ""


def _check_no_repeats(order: Sequence[Any], parameters: Iterable[Any]) -> None:
    names = {name for parameter in parameters for name in parameter.opts}
    for option, count in Counter(order).items():
        if count == 1 or not _holds_one_value(option):
            continue
        name = max(option.opts, key=len)
        more = f"; for several, write {name}s A,B" if f"{name}s" in names else ""
        raise UsageError(f"{name} is given {count} times, but takes one value{more}")


def _holds_one_value(parameter: Any) -> bool:
    """Whether a second value would replace the first; a plain flag has no value to lose."""
    is_option = parameter.param_type_name == "option"
    is_plain_flag = is_option and parameter.is_flag and not parameter.secondary_opts
    return is_option and not parameter.multiple and not is_plain_flag


def _check_arguments(command: str, values: dict[str, Any], parameters: Iterable[Any]) -> None:
    for parameter in parameters:
        is_argument = parameter.param_type_name == "argument"
        if is_argument and parameter.required and not values.get(parameter.name):
            kind = parameter.metavar or parameter.name.upper()
            example = f"{command} {EXAMPLES.get(kind, kind)}"
            raise UsageError(f"{kind} is missing; write, for example: {example}")
