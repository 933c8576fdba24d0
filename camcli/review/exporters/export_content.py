"""What every format is written from: images, classes and boxes, and the files that it becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from camcli.core.plurals import format_count
from camcli.core.types import Box
from camcli.review.result_lines import StoredExplanation

MaskForm = Literal["rle", "polygons"]


@dataclass(frozen=True, slots=True)
class ExportCategory:
    """A class: its number from 1, and a name of one line that no other class has.

    `class_name` is the name as the run has it. A number may be a text if the user's own file has
    such numbers.
    """

    number: int | str
    name: str
    class_name: str


@dataclass(frozen=True, slots=True)
class ExportObject:
    """A box in pixels, half-open, with its class.

    `score` is the probability of the class, or without one the mean of the map in the box.
    """

    category: ExportCategory
    box: Box
    score: float
    explanation: StoredExplanation


@dataclass(frozen=True, slots=True)
class ExportImage:
    """An image, its number from 1, and its boxes; `path` is the file as the run opened it."""

    number: int | str
    name: str
    path: str
    width: int
    height: int
    objects: tuple[ExportObject, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportContent:
    """The images and classes of one method's results."""

    model: str
    method: str
    categories: tuple[ExportCategory, ...]
    images: tuple[ExportImage, ...]

    @property
    def object_count(self) -> int:
        """The number of boxes."""
        return sum(len(image.objects) for image in self.images)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Options that belong to some formats only, as typed."""

    masks: MaskForm | None = None
    categories: Path | None = None
    conf: bool = False


@dataclass(slots=True)
class ExportFiles:
    """What an exporter makes: the content of each file, and links to images, by relative name.

    `problems` say what could not be written, `notes` what the reader of the files should know.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_problem(self, count: int, noun: str, text: str) -> None:
        """Add a counted problem, such as "3 images without a file"; nothing if there are none."""
        if count:
            self.problems.append(f"{format_count(count, noun)} {text}")

    def add_note(self, count: int, noun: str, text: str) -> None:
        """Add a counted note; nothing if there are none."""
        if count:
            self.notes.append(f"{format_count(count, noun)} {text}")


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts by name, the most frequent first and at most five: "tabby (3), lynx (1)"."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = [f"{name[:60]} ({count})" for name, count in ordered[:5]]
    return ", ".join([*shown, *(["…"] if len(ordered) > 5 else [])])


def encode_json(document: Any) -> bytes:
    """A file of JSON. Only ASCII, because names may hold what is not valid Unicode."""
    return f"{json.dumps(document, allow_nan=False)}\n".encode()
