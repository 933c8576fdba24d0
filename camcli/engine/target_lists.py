"""Tables of targets: the class of each image, from a CSV file."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from camcli.core.errors import TargetError, UsageError
from camcli.core.types import ImageSource
from camcli.io.cub_tables import load_cub_classes
from camcli.io.labels import Labels

TARGET_CSV_COLUMNS = (("image",), ("class", "class_index"))


def load_class_list(path: Path) -> Mapping[str, str]:
    """Read the class of each image. Raises UsageError for a file that is not such a table."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--target @{path}: not a regular file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
        raise UsageError(f"--target @{path}: {reason}") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    image, label = (
        next((header.index(n) for n in names if n in header), None) for names in TARGET_CSV_COLUMNS
    )
    if image is None or label is None:
        if of_cub := load_cub_classes(path):
            return of_cub
        raise UsageError(
            f"--target @{path}: the first row must name the columns `image,class`"
            " (or give CUB's image_class_labels.txt, with its images.txt beside it)"
        )
    listed: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(image, label):
            raise UsageError(f"--target @{path}: row {number} has too few columns")
        if listed.setdefault(row[image], row[label]) != row[label]:
            raise UsageError(f"--target @{path}: row {number} has another class for {row[image]!r}")
    return MappingProxyType(listed)


def find_listed_class(
    source: ImageSource, class_by_image: Mapping[str, str], spec: str, labels: Labels
) -> int:
    """The class of an image, listed by the path given, the path from the list, or its name."""
    relative = os.path.relpath(source.path, Path(spec[1:]).parent)
    for key in (str(source.path), relative, source.name, source.path.name):
        if key in class_by_image:
            return labels.find_class(class_by_image[key])
    raise TargetError(f"not listed in {spec[1:]}")
