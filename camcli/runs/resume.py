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
from camcli.core.types import Failure, ImageSource
from camcli.io.results import RESULTS_FILE
from camcli.runs.counts import ResultLine


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A line of a list, as it is written and as what it says."""

    raw_line: bytes
    content: ResultLine

    @property
    def image_path(self) -> str:
        """The image that it is about."""
        return str(self.content["path"])


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """What a run is to do: its images, by path their places; how many lines each is to have.

    `key(path)` is what a result of this run would be made of; None where the file is gone.
    """

    index_by_path: Mapping[str, int]
    lines_per_image: int
    compute_key: Callable[[str], str | None]

    @classmethod
    def from_sources(
        cls,
        sources: Iterable[ImageSource | Failure],
        lines_per_image: int,
        compute_key: Callable[[str], str | None],
    ) -> ResumePlan:
        """Of what was found under the inputs."""
        return cls(
            {str(item.path): n for n, item in enumerate(sources)}, lines_per_image, compute_key
        )


def iter_log_entries(path: Path) -> Iterator[LogEntry]:
    """The lines of a list that are whole; a torn one, or what else is in the file, is left out."""
    with path.open("rb") as file:
        for text in file:
            says = _parse_log_line(text)
            if says is not None:
                yield LogEntry(text, says)


def _parse_log_line(raw_line: bytes) -> ResultLine | None:
    try:
        says = json.loads(raw_line) if raw_line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(says, dict) or not isinstance(says.get("path"), str):
        return None
    return says if says.get("status") in ("ok", "failed") else None


def prune_log(
    output: Path, resume_plan: ResumePlan, callback: Callable[[ResultLine], None]
) -> set[str]:
    """Leave in a run's list what needs not be done again; the paths of images that are done.

    Kept are all lines of an image that has as many as are asked, with the keys they would have now,
    and whose files are there; and lines of images that this run does not have. `see` is shown what
    is kept of this run's. Raises OutputError.
    """
    path = output / RESULTS_FILE
    done: set[str] = set()

    def iter_kept_lines() -> Iterator[bytes]:
        for image, own in groupby(iter_log_entries(path), key=lambda entry: entry.image_path):
            lines = list(own)
            if image in done or not _is_still_valid(lines, image, output, resume_plan):
                continue
            done.add(image)
            for line in lines:
                if image in resume_plan.index_by_path:
                    callback(line.content)
                yield line.raw_line

    if path.exists():
        _replace_log(path, iter_kept_lines())
    return done & resume_plan.index_by_path.keys()


def _is_still_valid(
    lines: Sequence[LogEntry], image: str, output: Path, resume_plan: ResumePlan
) -> bool:
    if image not in resume_plan.index_by_path:
        return True
    key = resume_plan.compute_key(image)
    return len(lines) == resume_plan.lines_per_image and all(
        line.content["status"] == "ok"
        and key in (None, line.content.get("key"))
        and _is_result_line(line.content)
        and all(
            _is_output_file(output, file)
            for shown in line.content["explanations"]
            for file in shown["files"].values()
        )
        for line in lines
    )


def _is_result_line(content: ResultLine) -> bool:
    """Whether a line says what a summary will read of it."""
    shown = content.get("explanations")
    return (
        isinstance(content.get("method"), str)
        and isinstance(shown, list)
        and bool(shown)
        and all(isinstance(each, dict) and _is_explanation_entry(each) for each in shown)
    )


def _is_explanation_entry(content: ResultLine) -> bool:
    kinds = {"class_name": str, "map_status": str, "files": dict, "boxes": list}
    layers = content.get("layer_status", {})
    return all(isinstance(content.get(name), kind) for name, kind in kinds.items()) and (
        isinstance(layers, dict) and all(isinstance(status, str) for status in layers.values())
    )


def _is_output_file(output: Path, file_name: object) -> bool:
    if (
        not isinstance(file_name, str)
        or PurePosixPath(file_name).is_absolute()
        or ".." in Path(file_name).parts
    ):
        return False
    return os.path.isfile(output / file_name)


def sort_log(output: Path, index_by_path: Mapping[str, int]) -> None:
    """Put a run's list into the order of its inputs, if it is not; others' lines go first."""
    path = output / RESULTS_FILE
    order: list[tuple[int, int, int]] = []
    start = 0
    with path.open("rb") as file:
        for text in file:
            says = _parse_log_line(text)
            order.append(
                (index_by_path.get(str(says["path"]), -1) if says else -1, start, len(text))
            )
            start += len(text)
        if (wanted := sorted(order)) != order:
            _replace_log(path, (_read_slice(file, begin, size) for _, begin, size in wanted))


def _read_slice(file: Any, begin: int, size: int) -> bytes:
    file.seek(begin)
    text: bytes = file.read(size)
    return text


def _replace_log(path: Path, lines: Iterable[bytes]) -> None:
    """Put other lines into a list, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.writelines(lines)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
