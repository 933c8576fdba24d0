"""A command of camcli as text that a user can copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from camcli.core.errors import to_one_line

MAX_COMMAND_CHARACTERS = 300  # the longest command that a message repeats


def format_command(arguments: Sequence[str]) -> str:
    """The command with these arguments on one line; empty if it is too long for a message."""
    command = to_one_line(shlex.join(["camcli", *arguments]))
    return command if len(command) <= MAX_COMMAND_CHARACTERS else ""
