"""Resume a run: find the lines of an earlier results.jsonl that are still valid.

The file is not trusted. A line counts only if it is complete and its files exist.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from camcli.core.errors import FULL_ERRNOS, OutputError, StorageError
from camcli.core.types import Failure, ImageSource
from camcli.io.results import RESULTS_FILE
from camcli.runs.counts import ResultLine


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of results.jsonl: its bytes and its content."""

    raw_line: bytes
    content: ResultLine

    @property
    def image_path(self) -> str:
        """The path of the image that the line describes."""
        return str(self.content["path"])


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """The images of the new run, and how to recognise their valid lines.

    `index_by_path` gives the position of each image. `compute_key(path)` is the key that a new
    result line of the image would have; None if the image file is gone.
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
        """Create the plan for the inputs of a run."""
        return cls(
            {str(item.path): n for n, item in enumerate(sources)}, lines_per_image, compute_key
        )


def iter_log_entries(path: Path) -> Iterator[LogEntry]:
    """Yield the complete lines of a results.jsonl; skip torn lines and anything else."""
    with path.open("rb") as file:
        for raw_line in file:
            content = parse_log_line(raw_line)
            if content is not None:
                yield LogEntry(raw_line, content)


def parse_log_line(raw_line: bytes) -> ResultLine | None:
    """The content of a complete line of results.jsonl; None for anything else."""
    try:
        content = json.loads(raw_line) if raw_line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("path"), str):
        return None
    return content if content.get("status") in ("ok", "failed") else None


def prune_log(
    output: Path, resume_plan: ResumePlan, count_line: Callable[[ResultLine], None]
) -> set[str]:
    """Delete the lines of results.jsonl that must be computed again.

    The lines of an image stay if there is one per request, if they have the keys that they would
    get now, and if their files exist. Lines of images outside this run stay, too. `count_line`
    gets each line that stays and belongs to this run. Returns the paths of the images that are
    done. Raises OutputError.
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
                    count_line(line.content)
                yield line.raw_line

    if path.exists():
        replace_log(path, iter_kept_lines())
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
        and is_result_line(line.content)
        and all(
            _is_output_file(output, file)
            for shown in line.content["explanations"]
            for file in shown["files"].values()
        )
        for line in lines
    )


def is_result_line(content: ResultLine) -> bool:
    """Whether a line has every field that the summary reads."""
    shown = content.get("explanations")
    return (
        isinstance(content.get("method"), str)
        and isinstance(shown, list)
        and bool(shown)
        and all(isinstance(each, dict) and _is_explanation_entry(each) for each in shown)
    )


def _is_explanation_entry(content: ResultLine) -> bool:
    kinds = {"class_name": str | None, "map_status": str, "files": dict, "boxes": list}
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
    """Sort results.jsonl in the order of the inputs; lines of other images come first."""
    path = output / RESULTS_FILE
    order: list[tuple[int, int, int]] = []
    start = 0
    with path.open("rb") as file:
        for raw_line in file:
            content = parse_log_line(raw_line)
            index = index_by_path.get(str(content["path"]), -1) if content else -1
            order.append((index, start, len(raw_line)))
            start += len(raw_line)
        if (wanted := sorted(order)) != order:
            replace_log(path, (_read_slice(file, begin, size) for _, begin, size in wanted))


def _read_slice(file: BinaryIO, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def replace_log(path: Path, lines: Iterable[bytes]) -> None:
    """Replace all lines of a file at once, or leave the file as it is."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.writelines(lines)
        temporary.replace(path)
    except OSError as error:
        kind = StorageError if error.errno in FULL_ERRNOS else OutputError
        raise kind(f"cannot write {path}: {error.strerror}") from None
