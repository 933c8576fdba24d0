"""A program in a terminal of its own, and what is on the screen when it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyte

COLUMNS, ROWS = 60, 30
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
COLORS = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
# COLUMNS and LINES are set for the processes of pytest-xdist.
OWN_VARIABLES = (
    *("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM", "PYTHONIOENCODING"),
    *("COLUMNS", "LINES"),
)


@dataclass(frozen=True)
class TerminalRun:
    """What a program wrote to its terminal, and to standard output if that was a pipe."""

    status: int
    written: bytes
    out: bytes

    @property
    def screen(self) -> pyte.Screen:
        """A screen that is high enough to hold all that was written."""
        screen = pyte.Screen(COLUMNS, 1000)
        pyte.ByteStream(screen).feed(re.sub(rb"\x1b_.*?\x1b\\", b"", self.written))
        return screen

    @property
    def lines(self) -> list[str]:
        """The lines of the screen up to the last that is not empty."""
        text = "\n".join(line.rstrip() for line in self.screen.display)
        return text.rstrip().splitlines()


def run_in_terminal(
    arguments: Sequence[object],
    folder: Path,
    *,
    variables: dict[str, str] | None = None,
    has_pipe: bool = False,
    answer: Callable[[bytes], bytes] = lambda _query: b"",
) -> TerminalRun:
    """Run Python with these arguments; `answer` says what the terminal answers to what it gets."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 600, 600))
    kept = {name: text for name, text in os.environ.items() if name not in OWN_VARIABLES}
    program = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *map(str, arguments)],
        stdin=inner,
        stdout=subprocess.PIPE if has_pipe else inner,
        stderr=inner,
        cwd=folder,
        env=kept | (COLORS if variables is None else variables),
        start_new_session=True,
    )
    os.close(inner)
    written = b""
    with suppress(OSError):  # Linux says EIO once the program has ended
        while part := os.read(outer, 65536):
            written += part
            os.write(outer, answer(part))
    out = program.stdout.read() if program.stdout else b""
    if program.stdout:
        program.stdout.close()
    os.close(outer)
    return TerminalRun(program.wait(), written, out)
