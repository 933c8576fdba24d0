"""Find the folders of all shards of a run, and refuse those that do not belong together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.core.command_text import format_command
from camcli.core.errors import UsageError, to_one_line
from camcli.core.shards import SHARDS_FOLDER, Shard, parse_folder_name
from camcli.runs.run_document import list_identity_changes, load_manifest
from camcli.runs.shard_batches import list_shard_changes

MAX_NAMED_SHARDS = 5  # in one message


@dataclass(frozen=True, slots=True)
class ShardFolder:
    """The folder of a shard, and its run.json."""

    folder: Path
    shard: Shard
    manifest: Mapping[str, Any]


def list_shard_folders(output: Path) -> list[tuple[Shard, Path]]:
    """The shards of a run's folder that have a folder, in their order; links do not count."""
    try:
        folders = [path for path in (output / SHARDS_FOLDER).iterdir() if _is_own_folder(path)]
    except OSError:
        return []
    found = ((parse_folder_name(path.name), path) for path in folders)
    shards = ((shard, path) for shard, path in found if shard is not None)
    return sorted(shards, key=lambda pair: (pair[0].count, pair[0].index))


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def check_shard_count(output: Path, count: int) -> None:
    """Refuse to add a shard to a run that was divided into another number of shards."""
    others = {shard.count for shard, _ in list_shard_folders(output)} - {count}
    if others:
        where = to_one_line(output / SHARDS_FOLDER)
        raise UsageError(
            f"{where} holds shards of {min(others)}, not of {count}: "
            f"choose another --output, or remove {where}"
        )


def open_shards(output: Path) -> list[ShardFolder]:
    """Every shard of a run, finished and of the same settings. Raises UsageError."""
    found = list_shard_folders(output)
    counts = sorted({shard.count for shard, _ in found})
    if not found:
        raise UsageError(
            f"{to_one_line(output)} has no shards; to make the first: "
            "camcli explain INPUT --shard 0/4 --output DIR"
        )
    if len(counts) > 1:
        numbers = " and ".join(str(count) for count in counts[:3])
        where = to_one_line(output / SHARDS_FOLDER)
        raise UsageError(f"{where} holds shards of {numbers}; remove those of the wrong number")
    shards = [ShardFolder(path, shard, _load_document(path)) for shard, path in found]
    _check_finished(shards, counts[0])
    for other in shards[1:]:
        _check_same_run(shards[0], other)
    return shards


def _load_document(folder: Path) -> dict[str, Any]:
    """The run.json of a shard, which can also be written again. Raises UsageError."""
    document = load_manifest(folder)
    try:
        json.dumps(document)
    except RecursionError:
        where = to_one_line(folder)
        raise UsageError(f"{where}: its run.json is damaged; repeat with --overwrite") from None
    return document


def _check_finished(shards: Sequence[ShardFolder], count: int) -> None:
    """Raise UsageError for shards that are missing or not done, with the command to continue."""
    done = {each.shard.index for each in shards if each.manifest.get("state") == "done"}
    missing = [index for index in range(count) if index not in done]
    if not missing:
        return
    names = ", ".join(map(str, missing[:MAX_NAMED_SHARDS]))
    more = ", …" if len(missing) > MAX_NAMED_SHARDS else ""
    which = f"shard {names} of {count} is" if len(missing) == 1 else f"shards {names}{more} are"
    command = _format_command(shards, Shard(missing[0], count))
    raise UsageError(f"{which} not finished; to continue: {command}")


def _format_command(shards: Sequence[ShardFolder], shard: Shard) -> str:
    """The command of the shard, or that of another one with this number."""
    known = sorted(shards, key=lambda each: each.shard != shard)
    given = next((list(each.manifest["arguments"]) for each in known if _has_arguments(each)), [])
    advice = f"repeat the run's command with --resume and --shard {shard}, or with its --devices"
    if not given:
        return advice
    text = "\0".join(given)
    text = re.sub(r"(?<=\0)--shard[=\0][^\0]*", f"--shard={shard}", text)
    rest = [part for part in text.split("\0") if part not in ("--overwrite", "--resume")]
    return format_command([rest[0], "--resume", *rest[1:]]) or advice


def _has_arguments(each: ShardFolder) -> bool:
    given = each.manifest.get("arguments")
    return isinstance(given, list) and all(isinstance(part, str) for part in given)


def _check_same_run(first: ShardFolder, other: ShardFolder) -> None:
    changes = list_identity_changes(first.manifest, other.manifest)
    if changes:
        raise UsageError(
            f"{to_one_line(other.folder)} has different settings than {first.folder.name} "
            f"({'; '.join(changes)}); repeat its command with --overwrite and the same settings"
        )
    expected = {**read_entry(first), "index": other.shard.index}
    found = {**read_entry(other), "index": other.shard.index}
    if found != expected:
        what = ", ".join(list_shard_changes(expected, found))
        raise UsageError(
            f"{to_one_line(other.folder)} does not fit {first.folder.name}: {what} differs; "
            "repeat its command with --overwrite"
        )


def read_entry(each: ShardFolder) -> dict[str, Any]:
    """The entry `shard` of a run.json, checked. Raises UsageError."""
    entry = each.manifest.get("shard")
    numbers = ("batch_size", "images")
    if (
        not isinstance(entry, dict)
        or (entry.get("index"), entry.get("count")) != (each.shard.index, each.shard.count)
        or not all(_is_count(entry.get(name)) for name in numbers)
        or not entry["batch_size"]
        or not re.fullmatch(r"[0-9a-f]{64}", str(entry.get("list_sha256")))
    ):
        where = to_one_line(each.folder)
        raise UsageError(f"{where}: its run.json is not that of shard {each.shard}")
    return entry


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
