"""Options of `camcli figure` alone."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from camcli.cli.completions import complete_columns
from camcli.cli.declarations import NO_TYPE, OUTPUT, DrawnBoxes, Overwrite, Threshold
from camcli.core.errors import UsageError, to_one_line

FIGURE = "Figure"  # help panel
FigureFormat = Literal["png", "jpg", "pdf", "svg"]
FORMAT_BY_SUFFIX: dict[str, FigureFormat] = {
    ".png": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".pdf": "pdf",
    ".svg": "svg",
}
DEFAULT_STEM = "camcli-figure"
UNITS_PER_INCH = {"in": 1.0, "cm": 2.54, "mm": 25.4}
MAX_PIXELS = 20_000  # of a side

Columns = Annotated[
    list[str] | None,
    Option(
        "--columns",
        "-c",
        metavar="LIST",
        help="Show these columns: image, fused, stage1..5, blocks, a method, top:3, parts, "
        "spotlight, ... joined by @, as in semantic@top:3; see docs/gallery.md.",
        show_default="image,fused",
        rich_help_panel=FIGURE,
        autocompletion=complete_columns,
    ),
]
Rows = Annotated[
    list[str] | None,
    Option(
        metavar="LIST",
        help="Give each image these rows, written as columns are, such as gradcam,layercam.",
        show_default="one row",
        rich_help_panel=FIGURE,
    ),
]


@dataclass(frozen=True, slots=True)
class FigureArguments:
    """How the sheet is laid out and where it goes, as typed."""

    titles: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Write these words above the columns, separated by commas.",
            rich_help_panel=FIGURE,
        ),
    ] = None
    names: Annotated[
        bool,
        Option(
            "--names",
            metavar=NO_TYPE,
            help="Write the name of each image beside its row.",
            rich_help_panel=FIGURE,
        ),
    ] = False
    transpose: Annotated[
        bool,
        Option(
            "--transpose",
            metavar=NO_TYPE,
            help="Show images as columns, and columns as rows.",
            rich_help_panel=FIGURE,
        ),
    ] = False
    wrap: Annotated[
        int | None,
        Option(
            metavar="N",
            min=1,
            help="Start a new line after N pictures.",
            show_default="as many as fit",
            rich_help_panel=FIGURE,
        ),
    ] = None
    width: Annotated[
        str,
        Option(
            metavar="LENGTH",
            help="Make the sheet this wide: 7.16in, 88mm, 18cm or 2000px.",
            rich_help_panel=FIGURE,
        ),
    ] = "7.16in"
    height: Annotated[
        str,
        Option(
            metavar="LENGTH",
            help="Start a new page when the sheet would be higher than this.",
            rich_help_panel=FIGURE,
        ),
    ] = "9.5in"
    dpi: Annotated[
        int,
        Option(
            metavar="N",
            min=36,
            max=1200,
            help="Draw N pixels per inch.",
            rich_help_panel=FIGURE,
        ),
    ] = 300
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the sheet into this file: .png, .jpg, .pdf or .svg.",
            show_default=f"{DEFAULT_STEM}.png",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    image_format: Annotated[
        FigureFormat | None,
        Option(
            help="Write this kind of file.",
            show_default="that of --output, else png",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Overwrite = False
    threshold: Threshold = None
    boxes: DrawnBoxes = "none"


def parse_length(option: str, text: str, dpi: int) -> float:
    """Read a length such as `88mm` in inches. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{0,6})?) ?(in|cm|mm|px)", text.strip())
    inches = float(found[1]) / UNITS_PER_INCH.get(found[2], dpi) if found else 0.0
    if not 1 <= inches <= MAX_PIXELS / dpi:
        limits = f"from 1in to {MAX_PIXELS} pixels"
        raise UsageError(f"{option} {text}: write a length {limits}, such as 7.16in or 88mm")
    return inches


def choose_output(output: Path | None, image_format: FigureFormat | None, overwrite: bool) -> Path:
    """The file to write; without `--output`, the first free name. Raises UsageError."""
    if output is None:
        return _find_free_file(image_format or "png", overwrite)
    found = FORMAT_BY_SUFFIX.get(output.suffix.lower())
    if found is None or found != (image_format or found):
        wanted = f".{image_format}" if image_format else ".png, .jpg, .pdf or .svg"
        raise UsageError(f"--output {to_one_line(output)}: the name must end in {wanted}")
    if os.path.isdir(output) or (os.path.lexists(output) and not overwrite):
        raise UsageError(f"{to_one_line(output)} exists: choose another --output, or --overwrite")
    return output


def _find_free_file(image_format: FigureFormat, overwrite: bool) -> Path:
    names = (f"{DEFAULT_STEM}{f'-{n}' if n > 1 else ''}.{image_format}" for n in count(1))
    return next(Path(name) for name in names if overwrite or not os.path.lexists(name))
