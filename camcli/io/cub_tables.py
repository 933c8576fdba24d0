"""The tables of CUB_200_2011: a number and a text in each line, without a header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from camcli.core.errors import UsageError


def load_cub_column(table: Path) -> dict[str, str]:
    """The text after each number; it may contain spaces. Raises UsageError for no such text."""
    try:
        lines = table.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{table}: {reason}") from None
    pairs = (line.split(maxsplit=1) for line in lines)
    return {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}


def load_cub_classes(table: Path) -> Mapping[str, str]:
    """The class of each image in CUB's image_class_labels.txt, by its path from CUB's folder.

    images.txt and classes.txt lie beside it. Without names, a class is its index from 0. Empty for
    a file of another form, and without images.txt. Raises UsageError.
    """
    numbers = load_cub_column(table)
    if not all(re.fullmatch(r"\d{1,9}", text) for pair in numbers.items() for text in pair):
        return {}
    listed, named = (table.with_name(name) for name in ("images.txt", "classes.txt"))
    names = load_cub_column(named) if named.is_file() else {}
    images = load_cub_column(listed) if listed.is_file() else {}
    return {
        f"{folder}{images[number]}": names.get(label, str(int(label) - 1))
        for number, label in numbers.items()
        if number in images
        for folder in ("", "images/")
    }
