"""The folder that a run gets when the user names none: `camcli-out`, later `camcli-out-2`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from camcli.core.errors import OutputError

EXPLAIN_FOLDER = "camcli-out"
COMPARE_FOLDER = "camcli-compare"
EVALUATE_FOLDER = "camcli-eval"
FAITHFULNESS_FOLDER = "camcli-faith"
TRAIN_FOLDER = "camcli-train"
FOLDER_NAMES = (
    *(EXPLAIN_FOLDER, COMPARE_FOLDER, EVALUATE_FOLDER),
    *(FAITHFULNESS_FOLDER, TRAIN_FOLDER),
)


def is_run_folder_name(name: str) -> bool:
    """Whether a run that was given no folder may have made a folder of this name."""
    base, dash, number = name.rpartition("-")
    return name in FOLDER_NAMES or (bool(dash) and base in FOLDER_NAMES and number.isdecimal())


def find_newest_folder(base: str) -> Path | None:
    """The folder in the working directory with the highest number: of `base` itself, 1."""
    numbers = _list_numbers(base)
    folders = [_format_name(base, n) for n in sorted(numbers, reverse=True)]
    return next((Path(name) for name in folders if os.path.isdir(name)), None)


@contextmanager
def claim_new_folder(base: str) -> Iterator[Path]:
    """Make a folder that no other run has; remove it in the end if nothing was written into it.

    Its number is one more than the highest number of `base`. Raises OutputError.
    """
    folder = _make_folder(base)
    try:
        yield folder
    finally:
        with suppress(OSError):  # it holds results
            folder.rmdir()


def _make_folder(base: str) -> Path:
    number = max(_list_numbers(base), default=0) + 1
    while True:
        folder = Path(_format_name(base, number))
        try:
            folder.mkdir()  # fails if another process has made it since
            return folder
        except FileExistsError:
            number += 1
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {folder}: {error.strerror}; name one with --output DIR"
            ) from None


def _list_numbers(base: str) -> list[int]:
    """The numbers in use, of files and links too."""
    found = (re.fullmatch(rf"{base}(?:-([1-9]\d{{0,8}}))?", name) for name in _list_names())
    return [int(match[1] or 1) for match in found if match]


def _list_names() -> list[str]:
    try:
        return [path.name for path in Path().iterdir()]
    except OSError:  # a directory that may be entered but not read
        return []


def _format_name(base: str, number: int) -> str:
    return base if number == 1 else f"{base}-{number}"
