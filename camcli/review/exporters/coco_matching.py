"""Give exported boxes the numbers of the user's own COCO annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from camcli.core.errors import UsageError, to_one_line
from camcli.review.exporters.export_content import (
    ExportCategory,
    ExportContent,
    ExportFiles,
    ExportImage,
    format_counts,
)


@dataclass(frozen=True, slots=True)
class OwnNumbers:
    """The numbers of classes by name, and of images by file name, of the user's file.

    `base_names` has the images by the last part of their name, if no other image has this part.
    """

    categories: Mapping[str, ExportCategory]
    images: Mapping[str, int | str]
    base_names: Mapping[str, int | str]

    def find_image(self, name: str) -> int | str | None:
        """The number of an image, by its whole name or by the last part of it."""
        return self.images.get(name, self.base_names.get(PurePosixPath(name).name))


def match_to_annotations(content: ExportContent, file: Path) -> tuple[ExportContent, list[str]]:
    """The same boxes with the numbers of `file`: classes go by name, images by file_name.

    What the file does not have is left out; the problems count it and name it. Raises UsageError
    for a file of another form, and if no class or no image is in the file.
    """
    own = _load_numbers(file)
    left_classes: Counter[str] = Counter()
    images = [_match_image(image, own, left_classes) for image in content.images]
    kept = [image for image in images if image]
    shown = to_one_line(file)
    if content.images and not kept:
        raise UsageError(f"--categories {shown}: it has none of the run's images by file_name")
    if left_classes and not any(image.objects for image in kept):
        names = format_counts(left_classes)
        raise UsageError(f"--categories {shown}: it has none of the run's classes, such as {names}")
    files = ExportFiles()
    files.add_problem(len(images) - len(kept), "image", f"left out: not in {shown}")
    reason = f"left out: {shown} lacks the class {format_counts(left_classes)}"
    files.add_problem(left_classes.total(), "box", reason)
    categories = tuple(own.categories.values())
    return replace(content, categories=categories, images=tuple(kept)), files.problems


def _match_image(
    image: ExportImage, own: OwnNumbers, left_classes: Counter[str]
) -> ExportImage | None:
    number = own.find_image(image.name)
    if number is None:
        return None
    matched = [
        (item, own.categories.get(item.category.class_name.strip())) for item in image.objects
    ]
    left_classes.update(item.category.name for item, found in matched if not found)
    objects = [replace(item, category=found) for item, found in matched if found]
    return replace(image, number=number, objects=tuple(objects))


def _load_numbers(file: Path) -> OwnNumbers:
    shown = to_one_line(file)
    try:
        document = json.loads(file.read_bytes())
        categories = [(_read_id(entry), entry["name"]) for entry in document["categories"]]
        images = [(_read_id(entry), entry["file_name"]) for entry in document["images"]]
        if not all(isinstance(name, str) for _, name in [*categories, *images]):
            raise ValueError
    except OSError as error:
        raise UsageError(f"--categories {shown}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"--categories {shown}: not COCO's JSON; it needs categories and images"
        ) from None
    _check_distinct("classes", [name.strip() for _, name in categories], shown)
    _check_distinct("images", [name for _, name in images], shown)
    base_names = Counter(PurePosixPath(name).name for _, name in images)
    return OwnNumbers(
        {name.strip(): ExportCategory(number, name, name) for number, name in categories},
        {name: number for number, name in images},
        {
            PurePosixPath(name).name: number
            for number, name in images
            if base_names[PurePosixPath(name).name] == 1
        },
    )


def _read_id(entry: Mapping[str, Any]) -> int | str:
    number = entry["id"]
    if isinstance(number, bool) or not isinstance(number, (int, str)):
        raise ValueError
    return number


def _check_distinct(kind: str, names: list[str], shown: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        first = to_one_line(repeated[0])[:100]
        raise UsageError(f"--categories {shown}: two {kind} have the name {first}")
