"""Join the shards of a run into one run: move their files, and bring their lines in order.

A merge that is cut off goes on when it is repeated: `shards/merge.jsonl` tells that it began.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EXDEV
from hashlib import sha256
from heapq import merge as merge_sorted
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from camcli.core.errors import OutputError, StorageError, UsageError, to_one_line
from camcli.core.shards import SHARDS_FOLDER
from camcli.io.files import DISK_ERRNOS, write_file
from camcli.io.jsonl import ResultsLog
from camcli.io.results import RESULTS_FILE, RUN_FILE
from camcli.review.result_lines import LineError
from camcli.runs.counts import ResultLine, RunCounts
from camcli.runs.merged_document import create_merged_document
from camcli.runs.resume import replace_log
from camcli.runs.run_document import load_manifest, write_manifest
from camcli.runs.shard_folders import ShardFolder, list_shard_folders, open_shards, read_entry
from camcli.runs.shard_lines import (
    MERGE_FILE,
    SafePaths,
    ShardBatches,
    parse_shard_line,
    read_shard_batches,
)

LineCallback = Callable[[ResultLine], None]


@dataclass(frozen=True, slots=True)
class MergedRun:
    """A run that was made in shards: its run.json, and how many files its shards still hold.

    `counts` is None if an earlier merge had written the run, and only its shards were left.
    """

    document: Mapping[str, Any]
    counts: RunCounts | None
    leftover_count: int


def is_merged(output: Path) -> bool:
    """Whether a folder holds a whole run that was made in shards, and no shards any more."""
    has_shards = list_shard_folders(output) or is_merge_under_way(output)
    return _is_written(output) and not has_shards


def is_merge_under_way(output: Path) -> bool:
    """Whether a merge began and did not come to its end."""
    marker = output / SHARDS_FOLDER / MERGE_FILE
    return marker.is_file() and marker.stat().st_size > 0


def merge_shards(
    output: Path,
    *,
    overwrite: bool = False,
    report_line: LineCallback = lambda _line: None,
) -> MergedRun:
    """Join all shards of a folder into one run there, and remove the shards.

    `report_line` gets each line of the run. Nothing changes before every line of every shard has
    been checked. Raises UsageError for shards that do not fit together, OutputError.
    """
    if not (list_shard_folders(output) or is_merge_under_way(output)):
        open_shards(output)  # says what is missing
    with ResultsLog.open(output / SHARDS_FOLDER / MERGE_FILE, resume=True) as marker:
        goes_on = is_merge_under_way(output)
        if not (goes_on and _is_written(output)):
            _check_output_free(output, overwrite, goes_on)
            counts = _merge(output, marker, goes_on, report_line)
        else:
            counts = None
        leftover_count = _remove_shards(output)
        marker.path.unlink(missing_ok=True)
    with suppress(OSError):  # other files lie there
        (output / SHARDS_FOLDER).rmdir()
    return MergedRun(load_manifest(output), counts, leftover_count)


def _is_written(output: Path) -> bool:
    """Whether run.json is that of a merged run."""
    if not (output / RUN_FILE).is_file():
        return False
    document = load_manifest(output)
    shards = document.get("shards")
    numbers = (document.get("images"), shards.get("count") if isinstance(shards, dict) else None)
    return all(isinstance(number, int) for number in numbers)


def _check_output_free(output: Path, overwrite: bool, goes_on: bool) -> None:
    """Refuse to replace a run that is not the one of a merge that was cut off."""
    has_run = os.path.lexists(output / RESULTS_FILE)
    is_own = goes_on and not os.path.lexists(output / RUN_FILE)
    if has_run and not is_own and not overwrite:
        raise UsageError(
            f"{to_one_line(output)} already holds a run: add --overwrite to replace it"
        )


def _merge(output: Path, marker: ResultsLog, goes_on: bool, report_line: LineCallback) -> RunCounts:
    shards = open_shards(output)
    moved = SafePaths(output) if goes_on else None
    batches = [read_shard_batches(each, moved) for each in shards]
    _check_whole(output, shards, batches)
    if not goes_on:
        _remove_files(output, RESULTS_FILE, RUN_FILE)
        marker.append({"merging": len(shards)})
    merger = _Merger(SafePaths(output), shards, batches, report_line)
    replace_log(output / RESULTS_FILE, merger.iter_lines())
    write_manifest(output, create_merged_document(shards, merger.counts))
    return merger.counts


def _check_whole(
    output: Path, shards: Sequence[ShardFolder], batches: Sequence[ShardBatches]
) -> None:
    """Raise UsageError unless the shards have each image of the run once, and each file once."""
    where = to_one_line(output / SHARDS_FOLDER)
    total = sum(len(own.digests) for own in batches)
    digests = (batches[n % len(shards)].digests[n // len(shards)] for n in range(total))
    if sha256(b"".join(digests)).hexdigest() != read_entry(shards[0])["list_sha256"]:
        raise UsageError(
            f"{where}: the results are not those of the run's images, or not in their order; "
            "repeat the shards with --resume"
        )
    hashes = merge_sorted(*(own.name_hashes for own in batches))
    if any(one == next_one for one, next_one in pairwise(hashes)):
        raise UsageError(f"{where}: two shards hold files of the same name")


@dataclass(slots=True)
class _Merger:
    """Moves the files of each line into the run's folder, and counts the line."""

    paths: SafePaths
    shards: Sequence[ShardFolder]
    batches: Sequence[ShardBatches]
    report_line: LineCallback
    counts: RunCounts = field(default_factory=RunCounts)

    def iter_lines(self) -> Iterator[bytes]:
        """The lines of all shards in the order of the run. Raises OutputError."""
        count = len(self.shards)
        sources = [SafePaths(each.folder) for each in self.shards]
        for number in range(sum(len(own.digests) for own in self.batches)):
            each, ends = self.shards[number % count], self.batches[number % count].ends
            start, end = ends[number // count], ends[number // count + 1]
            for raw_line in BytesIO(_read_slice(each.folder / RESULTS_FILE, start, end)):
                self._move_line(raw_line, sources[number % count])
                yield raw_line

    def _move_line(self, raw_line: bytes, source: SafePaths) -> None:
        try:
            line = parse_shard_line(raw_line)
        except LineError:
            raise OutputError(f"{to_one_line(source.root)} changed during the merge") from None
        for name in line.names:
            _move_file(name, source, self.paths)
        self.counts.add_line(line.content)
        self.report_line(line.content)


def _read_slice(path: Path, start: int, end: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
    except OSError as error:
        raise OutputError(f"cannot read {to_one_line(path)}: {error.strerror}") from None


def _move_file(name: str, source: SafePaths, target: SafePaths) -> None:
    """Move a file, unless an earlier merge did so."""
    old, new = source.find(name), target.find(name)
    if new is None:
        where = to_one_line(target.root / name)
        raise OutputError(f"cannot write {where}: a link in its path leads out of the folder")
    try:
        if old is None or not source.has_file(name):
            return  # the check of all lines found it in the target
        _rename_file(old, new)
    except OSError as error:
        kind = StorageError if error.errno in DISK_ERRNOS else OutputError
        raise kind(f"cannot write {to_one_line(new)}: {error.strerror}") from None


def _rename_file(old: Path, new: Path) -> None:
    try:
        try:
            old.replace(new)
        except FileNotFoundError:  # the first file of this folder
            new.parent.mkdir(parents=True, exist_ok=True)
            old.replace(new)
    except OSError as error:
        if error.errno != EXDEV:
            raise
        write_file(new, old.read_bytes())  # the shards lie on another file system
        old.unlink()


def _remove_shards(output: Path) -> int:
    """Remove the lists and the empty folders of shards. Returns how many other files stay."""
    left = 0
    for _, folder in list_shard_folders(output):
        _remove_files(folder, RESULTS_FILE, RUN_FILE)
        for place, _, files in os.walk(folder, topdown=False):
            left += len(files)
            with suppress(OSError):
                Path(place).rmdir()
    return left


def _remove_files(folder: Path, *names: str) -> None:
    for name in names:
        for path in (folder / name, folder / f".{name}.tmp"):
            with suppress(OSError):
                path.unlink()
