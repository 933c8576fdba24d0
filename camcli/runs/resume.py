"""What an earlier run of the same settings has left in a folder. Knows nothing of models.

A run's list is taken for what anyone may have written: a line counts only if it says all that a
line should, and its files are there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from camcli.core.errors import OutputError
from camcli.core.types import Failed, Source
from camcli.io.results import FILE

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a list, as it is written and as what it says."""

    text: bytes
    says: Line

    @property
    def path(self) -> str:
        """The image that it is about."""
        return str(self.says["path"])


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run is to do: its images, by path their places; how many lines each is to have.

    `key(path)` is what a result of this run would be made of; None where the file is gone.
    """

    places: Mapping[str, int]
    lines: int
    key: Callable[[str], str | None]

    @classmethod
    def of(
        cls, found: Iterable[Source | Failed], lines: int, key: Callable[[str], str | None]
    ) -> Asked:
        """Of what was found under the inputs."""
        return cls({str(item.path): n for n, item in enumerate(found)}, lines, key)


def entries(path: Path) -> Iterator[Entry]:
    """The lines of a list that are whole; a torn one, or what else is in the file, is left out."""
    with path.open("rb") as file:
        for text in file:
            says = _says(text)
            if says is not None:
                yield Entry(text, says)


def _says(text: bytes) -> Line | None:
    try:
        says = json.loads(text) if text.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(says, dict) or not isinstance(says.get("path"), str):
        return None
    return says if says.get("status") in ("ok", "failed") else None


def mend(output: Path, asked: Asked, see: Callable[[Line], None]) -> set[str]:
    """Leave in a run's list what needs not be done again; the paths of images that are done.

    Kept are all lines of an image that has as many as are asked, with the keys they would have now,
    and whose files are there; and lines of images that this run does not have. `see` is shown what
    is kept of this run's. Raises OutputError.
    """
    path = output / FILE
    done: set[str] = set()

    def kept() -> Iterator[bytes]:
        for image, own in groupby(entries(path), key=lambda entry: entry.path):
            lines = list(own)
            if image in done or not _stands(lines, image, output, asked):
                continue
            done.add(image)
            for line in lines:
                if image in asked.places:
                    see(line.says)
                yield line.text

    if path.exists():
        _rewrite(path, kept())
    return done & asked.places.keys()


def _stands(lines: Sequence[Entry], image: str, output: Path, asked: Asked) -> bool:
    if image not in asked.places:
        return True
    key = asked.key(image)
    return len(lines) == asked.lines and all(
        line.says["status"] == "ok"
        and key in (None, line.says.get("key"))
        and _is_result(line.says)
        and all(
            _is_there(output, file)
            for shown in line.says["explanations"]
            for file in shown["files"].values()
        )
        for line in lines
    )


def _is_result(says: Line) -> bool:
    """Whether a line says what a summary will read of it."""
    shown = says.get("explanations")
    return (
        isinstance(says.get("method"), str)
        and isinstance(shown, list)
        and bool(shown)
        and all(isinstance(each, dict) and _is_shown(each) for each in shown)
    )


def _is_shown(shown: Line) -> bool:
    kinds = {"class_name": str, "map_status": str, "files": dict, "boxes": list}
    layers = shown.get("layer_status", {})
    return all(isinstance(shown.get(name), kind) for name, kind in kinds.items()) and (
        isinstance(layers, dict) and all(isinstance(status, str) for status in layers.values())
    )


def _is_there(output: Path, file: object) -> bool:
    if not isinstance(file, str) or PurePosixPath(file).is_absolute() or ".." in Path(file).parts:
        return False
    return os.path.isfile(output / file)


def in_order(output: Path, places: Mapping[str, int]) -> None:
    """Put a run's list into the order of its inputs, if it is not; others' lines go first."""
    path = output / FILE
    order: list[tuple[int, int, int]] = []
    start = 0
    with path.open("rb") as file:
        for text in file:
            says = _says(text)
            order.append((places.get(str(says["path"]), -1) if says else -1, start, len(text)))
            start += len(text)
        if (wanted := sorted(order)) != order:
            _rewrite(path, (_slice(file, begin, size) for _, begin, size in wanted))


def _slice(file: Any, begin: int, size: int) -> bytes:
    file.seek(begin)
    text: bytes = file.read(size)
    return text


def _rewrite(path: Path, lines: Iterable[bytes]) -> None:
    """Put other lines into a list, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.writelines(lines)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
