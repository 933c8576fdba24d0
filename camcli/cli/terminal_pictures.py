"""Draw pictures in a terminal: as pixels where it can show them, else as half blocks."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from camcli.cli.console import print_notice, print_renderable

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

MAX_COLUMNS, MAX_ROWS = 100, 100  # larger pictures show no more of a map of 7 x 7
MAX_PIXELS = 800  # of the longer side, on a terminal that shows pixels
FLAT_RATIO = 20  # a wider or higher picture gets one row or column of characters
CAPTION_LINES = 3  # kept free, so that the caption and the prompt stay in sight
SHELL_SIZE = (80, 24)  # of a terminal that does not tell its size
# What the library raises for terminals that answer nothing, or nonsense.
QUERY_ERRORS = (ImportError, OSError, ValueError, ArithmeticError, AttributeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class HalfBlocks:
    """A picture of which each character shows two pixels, one above the other."""

    picture: Image

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines of characters, for rich."""
        from rich.color import Color
        from rich.segment import Segment
        from rich.style import Style

        width, height = self.picture.size
        data = self.picture.convert("RGB").tobytes()
        colors = [Color.from_rgb(*data[at : at + 3]) for at in range(0, len(data), 3)]
        for top in range(0, width * height, 2 * width):
            for above in range(top, top + width):
                below = colors[above + width] if above + width < len(colors) else None
                yield Segment("▀", Style(color=colors[above], bgcolor=below))
            yield Segment.line()


@dataclass(frozen=True, slots=True)
class TerminalScreen:
    """A terminal on standard error: the characters that a picture may take.

    `max_size` is a picture's largest size (width, height) in pixels; `create_renderable` makes what
    rich prints of it.
    """

    columns: int
    rows: int
    max_size: tuple[int, int]
    create_renderable: Callable[[Image], RenderableType] = HalfBlocks

    def fit_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size (width, height) in which a picture fills the screen; it keeps its shape."""
        scale = min(self.max_size[0] / size[0], self.max_size[1] / size[1])
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))

    def draw(self, picture: Image, caption: str) -> None:
        """Print a picture of a fitting size, and a line below it."""
        print_renderable(self.create_renderable(picture), self.columns, self.rows)
        print_notice(caption)


def open_screen() -> TerminalScreen | None:
    """The terminal on standard error. None, after one line that says why, if it cannot show any.

    Importing textual-image queries the terminal, so this happens only here.
    """
    obstacle = _find_obstacle()
    if obstacle:
        print_notice(f"--show needs {obstacle}; camcli goes on without pictures")
        return None
    columns, rows = _find_cell_counts()
    create = _find_pixel_renderable()
    if create:
        return TerminalScreen(columns, rows, (MAX_PIXELS, MAX_PIXELS), create)
    return TerminalScreen(columns, rows, (columns, 2 * rows))


def _find_obstacle() -> str:
    """What the terminal lacks; empty if it can show pictures."""
    if not sys.stderr.isatty():
        return "a terminal, and standard error is a file or a pipe"
    from rich.console import Console

    console = Console(stderr=True)
    if console.no_color:
        return "colours, and NO_COLOR forbids them"
    if console.color_system is None:
        return f"a terminal with colours, and TERM is {os.environ.get('TERM') or 'not set'}"
    if not console.encoding.startswith("utf"):
        return f"UTF-8, and the encoding is {console.encoding}"
    return ""


def _find_cell_counts() -> tuple[int, int]:
    """The columns and rows that a picture may take."""
    try:
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        columns, rows = 0, 0
    columns, rows = columns or SHELL_SIZE[0], rows or SHELL_SIZE[1]
    return min(columns, MAX_COLUMNS), min(max(1, rows - CAPTION_LINES), MAX_ROWS)


def _find_pixel_renderable() -> Callable[[Image], RenderableType] | None:
    """What textual-image makes of a picture, if it is installed and the terminal shows pixels.

    The library asks through standard input and output, and writes kitty's images to the latter
    whatever file it is given: so both must be the terminal.
    """
    if not _may_query_terminal():
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)  # its warnings have tracebacks
    try:
        from textual_image import renderable
    except QUERY_ERRORS:
        return None
    chosen: Any = renderable.Image
    if chosen is renderable.SixelImage or (
        chosen is renderable.TGPImage and _has_true_colors()  # its images have colours as numbers
    ):
        return partial(_create_pixel_renderable, chosen)
    return None


def _create_pixel_renderable(create: Any, picture: Image) -> RenderableType:
    """A picture that keeps its shape, as large as possible, and never less than a character."""
    size: tuple[int | str, int | str] = "auto", "auto"
    if picture.height > FLAT_RATIO * picture.width:
        size = 1, "100%"
    elif picture.width > FLAT_RATIO * picture.height:
        size = "100%", 1
    item: RenderableType = create(picture, *size)
    return item


def _has_true_colors() -> bool:
    from rich.console import Console

    return Console(stderr=True).color_system == "truecolor"


def _may_query_terminal() -> bool:
    """Whether standard input and output are a terminal that belongs to camcli now.

    A job in the background would be stopped when it changes the terminal's mode.
    """
    if not all(stream and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__)):
        return False
    if not hasattr(os, "tcgetpgrp"):
        return True
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
