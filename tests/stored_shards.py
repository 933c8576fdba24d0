"""Folders of shards as `camcli explain --shard` leaves them, made without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stored_runs import result_line

from camcli.core.shards import Shard
from camcli.core.types import ImageSource
from camcli.runs.shard_batches import create_shard_entry, take_shard

Change = Callable[[dict[str, Any]], object]


def image_sources(count: int) -> list[ImageSource]:
    return [ImageSource(Path(f"/photos/{n:04}.jpg"), f"{n:04}.jpg", "") for n in range(count)]


def shard_line(name: str, *files: str) -> dict[str, Any]:
    """The line of an image; without file names it has one map."""
    names = files or (f"{name}.map.png",)
    own = {"files": {f"kind{n}": file for n, file in enumerate(names)}}
    return result_line(image=name, path=f"/photos/{name}", explanation=own)


def shard_document(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    digests = {"weights_sha256": "a" * 64, "classes_sha256": "b" * 64, "transform": {}}
    return {
        "state": "done",
        "arguments": ["explain", "photos", "--shard", f"{entry['index']}/{entry['count']}"],
        "started": "2026-01-01T00:00:00+00:00",
        "finished": f"2026-01-01T00:0{entry['index'] % 6}:00+00:00",
        "model": digests,
        "settings": {"fit": "squash"},
        "seconds": {"computing": 1.5},
        "images": 0,
        "shard": entry,
    } | changes


def write_shards(
    output: Path, image_count: int, shard_count: int, batch_size: int = 2
) -> list[Path]:
    """All shards of a run, finished. Returns their folders."""
    sources = image_sources(image_count)
    folders = []
    for index in range(shard_count):
        shard = Shard(index, shard_count)
        folder = output / "shards" / shard.folder_name
        folder.mkdir(parents=True)
        names = [source.name for source in take_shard(sources, batch_size, shard)]
        write_lines(folder, [shard_line(name) for name in names])
        for name in names:
            (folder / f"{name}.map.png").write_text(name)
        entry = create_shard_entry(sources, batch_size, shard)
        (folder / "run.json").write_text(json.dumps(shard_document(entry)))
        folders.append(folder)
    return folders


def write_lines(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    texts = [f"{json.dumps(line)}\n" for line in lines]
    if texts:
        (folder / "results.jsonl").write_text("".join(texts))


def change_document(folder: Path, change: Change) -> None:
    document = json.loads((folder / "run.json").read_text())
    change(document)
    (folder / "run.json").write_text(json.dumps(document))


def files_of(folder: Path) -> dict[str, bytes]:
    """What lies in a folder, by name."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
