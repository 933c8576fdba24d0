"""The output folder of a command, with and without `--output`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer import Option

from camcli.io.run_folders import claim_new_folder, find_newest_folder


def declare_output_folder(base: str, continuing: str = "--overwrite") -> Any:
    """Declare `--output` for a command whose folders are `base`, `base-2` and so on."""
    return Option(
        "--output",
        "-o",
        metavar="DIR",
        help=f"Write all files into this folder. Without it, a run makes a new one; {continuing}"
        " takes the newest.",
        show_default=f"{base}, then {base}-2, …",
        rich_help_panel="Output",
    )


def choose_output_folder(given: Path | None, base: str, *, continues: bool) -> Path | None:
    """The folder as given; for a run that continues or replaces another, the newest one.

    None stands for a new folder, which `open_output_folder` makes.
    """
    if given is not None or not continues:
        return given
    return find_newest_folder(base) or Path(base)


@contextmanager
def open_output_folder(chosen: Path | None, base: str) -> Iterator[Path]:
    """Yield the chosen folder, or make a new one. Raises OutputError."""
    if chosen is not None:
        yield chosen
        return
    with claim_new_folder(base) as folder:
        yield folder
