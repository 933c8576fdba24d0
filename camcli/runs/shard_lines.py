"""Check the lines of a shard, which anyone may have written, and find its batches in them."""

from __future__ import annotations

import json
import stat
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from camcli.core.errors import UsageError, to_one_line
from camcli.core.shards import SHARDS_FOLDER, parse_folder_name
from camcli.core.types import Failure
from camcli.io.files import is_below_folder
from camcli.io.jsonl import lock_log
from camcli.io.results import RESULTS_FILE, RUN_FILE
from camcli.review.result_lines import LineError, parse_result
from camcli.runs.resume import is_result_line
from camcli.runs.shard_batches import compute_batch_digest, count_shard_images
from camcli.runs.shard_folders import ShardFolder, read_entry

MERGE_FILE = "merge.jsonl"  # in the folder of shards, while a merge is under way
OWN_NAMES = frozenset({RESULTS_FILE, RUN_FILE})


@dataclass(slots=True)
class SafePaths:
    """Paths of files below a folder; no link leads out of it. Folders are looked at once."""

    root: Path
    _known: dict[str, bool] = field(default_factory=dict)

    def find(self, name: str) -> Path | None:
        """The path of a file name; None if its folder lies elsewhere."""
        path = self.root / name
        parent = str(path.parent)
        if parent not in self._known:
            self._known[parent] = is_below_folder(parent, self.root)
        return path if self._known[parent] else None

    def has_file(self, name: str) -> bool:
        """Whether there is such a file, which is no link, no folder and no device."""
        path = self.find(name)
        try:
            return path is not None and stat.S_ISREG(path.lstat().st_mode)
        except (OSError, ValueError):
            return False


@dataclass(slots=True)
class ShardBatches:
    """Where each batch of a shard lies in its results.jsonl, and the digest of its paths.

    Batch n has the bytes from `ends[n - 1]` to `ends[n]`. `name_hashes` has a hash of each file.
    """

    ends: array[int] = field(default_factory=lambda: array("q", [0]))
    digests: list[bytes] = field(default_factory=list)
    name_hashes: array[int] = field(default_factory=lambda: array("q"))


@dataclass(frozen=True, slots=True)
class ShardLine:
    """A line of a shard: its bytes, its content, the image's path, and the names of its files."""

    raw_line: bytes
    content: Mapping[str, Any]
    path: str
    names: Sequence[str]


def read_shard_batches(each: ShardFolder, moved: SafePaths | None) -> ShardBatches:
    """Check every line of a shard and its files. Raises UsageError, OutputError.

    `moved` is the run's folder if an earlier merge has moved files there, and was cut off.
    """
    entry, found = read_entry(each), ShardBatches()
    total, size = entry["images"], entry["batch_size"]
    expected = count_shard_images(total, size, each.shard)
    log = each.folder / RESULTS_FILE
    images = 0
    if log.is_symlink():
        raise UsageError(f"{to_one_line(log)} is a link; a shard has a file there")
    with lock_log(log):
        lines = _iter_checked_lines(log, each.folder, moved, found) if expected else iter(())
        batch: list[str] = []
        position = 0
        for path, own in groupby(lines, key=lambda line: line.path):
            images += 1
            position += sum(len(line.raw_line) for line in own)
            batch.append(path)
            if len(batch) == size or images == expected:
                found.ends.append(position)
                found.digests.append(compute_batch_digest(batch))
                batch = []
    if images != expected:
        raise UsageError(
            f"{to_one_line(log)} has results of {images} images, not of {expected}; "
            "repeat its command with --resume"
        )
    found.name_hashes = array("q", sorted(set(found.name_hashes)))
    return found


def _iter_checked_lines(
    log: Path, folder: Path, moved: SafePaths | None, found: ShardBatches
) -> Iterator[ShardLine]:
    own = SafePaths(folder)
    try:
        with log.open("rb") as file:
            for number, raw_line in enumerate(file, 1):
                try:
                    line = parse_shard_line(raw_line)
                    _check_files(line.names, own, moved)
                except LineError as error:
                    raise UsageError(
                        f"line {number} of {to_one_line(log)} is damaged ({error}); "
                        "repeat its command with --resume"
                    ) from None
                found.name_hashes.extend(hash(name) for name in line.names)
                yield line
    except FileNotFoundError:
        return


def parse_shard_line(raw_line: bytes) -> ShardLine:
    """Check a line. Raises LineError."""
    content = _load_line(raw_line)
    result = parse_result(content)
    if isinstance(result, Failure):
        return ShardLine(raw_line, content, result.path, ())
    if not is_result_line(content):
        raise LineError("explanations")
    outside = [name for shown in result.explanations for name in shown.outside_files]
    if outside:
        raise LineError(f"it names the file {to_one_line(outside[0])[:100]}")
    names = dict.fromkeys(name for shown in result.explanations for name in shown.files.values())
    return ShardLine(raw_line, content, result.path, tuple(names))


def _load_line(raw_line: bytes) -> Any:
    if not raw_line.endswith(b"\n"):
        raise LineError("it is cut off")
    try:
        return json.loads(raw_line)
    except (ValueError, RecursionError):
        raise LineError("it is not JSON") from None


def _check_files(names: Sequence[str], own: SafePaths, moved: SafePaths | None) -> None:
    for name in names:
        if _is_reserved(name):
            raise LineError(f"it names the file {to_one_line(name)[:100]}")
        if not own.has_file(name) and not (moved and moved.has_file(name)):
            raise LineError(f"its file {to_one_line(name)[:100]} is missing")


def _is_reserved(name: str) -> bool:
    """Whether a file of this name would take the place of a list, a shard or a temporary file."""
    parts = [part.casefold() for part in PurePosixPath(name).parts]
    inside = parts[0] == SHARDS_FOLDER and len(parts) > 1
    return (
        (len(parts) == 1 and (parts[0] in OWN_NAMES or parts[0] == SHARDS_FOLDER))
        or (inside and (parts[1] == MERGE_FILE or parse_folder_name(parts[1]) is not None))
        or (parts[-1].startswith(".") and parts[-1].endswith(".tmp"))
        or "\0" in name
    )
