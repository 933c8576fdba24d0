"""What shards cost: merging and listing many images, and one process beside two.

    python benchmarks/shards.py --images 1000000 --shards 16
    python benchmarks/shards.py PHOTOS --limit 200

Without PHOTOS, made-up shards are merged: lines without files, then one file for each line. The
table has seconds, microseconds an image, and the peak of the resident memory of the largest
process. Listing is what each shard does first: find every image, name its files, and compute the
digest of the list.
With PHOTOS, the same photographs are explained by one process and by `--devices cpu,cpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.core.shards import Shard
from camcli.core.types import ImageSource
from camcli.io.discovery import IMAGE_SUFFIXES
from camcli.runs.shard_batches import create_shard_entry, take_shard

ROOT = Path(__file__).parent.parent
BATCH_SIZE = 32
NETWORK = ("--method", "gradcam", "--save", "boxes")
LAUNCHER = """
import resource, subprocess, sys, time
start, null = time.monotonic(), subprocess.DEVNULL
status = subprocess.call(sys.argv[1:], stdout=null, stderr=null)
seconds = time.monotonic() - start
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, status)
"""
LISTING = """
import sys
from pathlib import Path
from camcli.core.shards import Shard
from camcli.io.discovery import find_image_sources
from camcli.runs.shard_batches import create_shard_entry, take_shard
sources = find_image_sources([sys.argv[1]], (), None)
create_shard_entry(sources, 32, Shard(0, 16))
take_shard(sources, 32, Shard(0, 16))
"""


@dataclass(frozen=True)
class Cost:
    """The time and the peak of the memory of a process, in seconds and MiB."""

    seconds: float
    memory: float
    status: int


def measure(*command: object) -> Cost:
    """Run a program of Python in a process of its own.

    The kernel's peak of the memory of a child counts what its parent had when it started, so the
    parent is a small process that only starts the program.
    """
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, sys.executable, *map(str, command)],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, memory, status = ran.stdout.split()
    return Cost(float(seconds), float(memory), int(status))


def create_line(source: ImageSource, *, has_file: bool) -> str:
    """A line of results.jsonl, about as long as a real one."""
    explanation = {
        "class_index": 281,
        "class_name": "tabby",
        "score": 0.548828,
        "targets": ["predicted"],
        "predicted": True,
        "map_status": "ok",
        "boxes": [{"x1": 1, "y1": 2, "x2": 30, "y2": 20, "score": 0.4302}],
        "files": {"boxes": f"{source.output_stem}.boxes.json"} if has_file else {},
    }
    line = {
        "schema_version": 1,
        "image": source.name,
        "path": str(source.path),
        "width": 640,
        "height": 427,
        "status": "ok",
        "model": "tf_efficientnet_lite0",
        "method": "gradcam",
        "layers": ["bn2"],
        "threshold": 0.2,
        "explanations": [explanation],
        "key": "0" * 16,
    }
    return f"{json.dumps(line)}\n"


def create_document(entry: dict[str, Any]) -> dict[str, Any]:
    """The parts of run.json that a merge reads."""
    digests = {"weights_sha256": "a" * 64, "classes_sha256": "b" * 64, "transform": {}}
    return {"state": "done", "model": digests, "settings": {}, "seconds": {}, "shard": entry}


def write_shards(output: Path, image_count: int, shard_count: int, *, has_files: bool) -> None:
    """Make the shards of a run, a folder for each thousand images."""
    stems = [f"{n // 1000:04}/{n:07}" for n in range(image_count)]
    sources = [ImageSource(Path("photos") / f"{s}.jpg", f"{s}.jpg", s) for s in stems]
    entry = create_shard_entry(sources, BATCH_SIZE, Shard(0, shard_count))
    for index in range(shard_count):
        shard = Shard(index, shard_count)
        folder = output / "shards" / shard.folder_name
        folder.mkdir(parents=True)
        own = [s for s in take_shard(sources, BATCH_SIZE, shard) if isinstance(s, ImageSource)]
        lines = (create_line(source, has_file=has_files) for source in own)
        with (folder / "results.jsonl").open("w") as file:
            file.writelines(lines)
        (folder / "run.json").write_text(json.dumps(create_document({**entry, "index": index})))
        for source in own if has_files else ():
            path = folder / f"{source.output_stem}.boxes.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text("{}\n")


def print_row(name: str, count: int, cost: Cost) -> None:
    """Print a row of the table."""
    each = 1e6 * cost.seconds / count
    failed = "" if cost.status == 0 else f" (exit status {cost.status})"
    print(
        f"| {name}{failed} | {count:,} | {cost.seconds:.1f} s | {each:.0f} µs "
        f"| {cost.memory:.0f} MiB |"
    )


def measure_merging(folder: Path, image_count: int, shard_count: int) -> None:
    """Merge lines without files, and a tenth as many with a file each; then list images."""
    for name, count, has_files in (
        ("merge lines", image_count, False),
        ("merge lines and move files", image_count // 10, True),
    ):
        output = folder / name.replace(" ", "-")
        write_shards(output, count, shard_count, has_files=has_files)
        cost = measure("-m", "camcli", "merge", output)
        print_row(f"{name}, {shard_count} shards", count, cost)
    photos = folder / "photos"
    for n in range(image_count // 10):
        path = photos / f"{n // 1000:04}" / f"{n:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    print_row("list a folder", image_count // 10, measure("-c", LISTING, photos))


def measure_devices(folder: Path, photos: Path, limit: int) -> None:
    """Explain the same photographs in one process, and in two."""
    found = sorted(p for p in photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[:limit]
    for name, options in (("1 process", ()), ("--devices cpu,cpu", ("--devices", "cpu,cpu"))):
        output = folder / name.replace(" ", "-")
        more: Sequence[object] = (*NETWORK, "--output", output, "--format", "quiet", *options)
        print_row(name, len(found), measure("-m", "camcli", "explain", *found, *more))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=16)
    given = parser.parse_args()
    print("| | images | time | an image | memory |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        if given.photos:
            measure_devices(Path(folder), given.photos, given.limit)
        else:
            measure_merging(Path(folder), given.images, given.shards)


if __name__ == "__main__":
    main()
