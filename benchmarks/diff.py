"""What the default limits of `camcli diff` let pass, and what they catch.

    python benchmarks/diff.py PHOTOS --limit 100

The photographs are explained once, then again with one thing changed, and `camcli diff` compares
both. The table has the number of images with the same class, the largest change of a score, and
the correlations of the maps and overlaps of the boxes: median / 1 % quantile / minimum.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.io.discovery import IMAGE_SUFFIXES
from camcli.review.diff.diff_files import DIFF_FILE
from camcli.review.diff.diff_statistics import compute_low_values

NETWORK = "tf_efficientnet_lite0"
METHOD = "gradcam"
RANDOM_MODULE = f"""
import timm, torch

def create():
    torch.manual_seed(0)
    return timm.create_model({NETWORK!r})
"""
VERDICTS = {0: "silent", 1: "fails", 2: "cannot be compared"}


@dataclass(frozen=True)
class Change:
    """Something that differs from the first run: options of explain, and threads."""

    name: str
    options: tuple[str, ...] = ()
    threads: int = 1
    method: str = METHOD


CHANGES = (
    Change("nothing"),
    Change("2 threads", threads=2),
    Change("batches of 1", ("--batch-size", "1")),
    Change("bf16", ("--precision", "bf16")),
    Change("bilinear for bicubic", ("--interpolation", "bilinear")),
    Change("crop for squash", ("--fit", "crop")),
    Change("mean 0.485,0.456,0.406 for 0.5", ("--mean", "0.485,0.456,0.406")),
    Change("LayerCAM for Grad-CAM", method="layercam"),
    Change("random weights", ("--model", "random_network:create")),
)


def run_camcli(folder: Path, threads: int, *arguments: str) -> int:
    """Run camcli in a folder, and return its exit status."""
    path = os.pathsep.join([str(folder), str(Path(__file__).parent.parent)])
    variables = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}
    ran = subprocess.run(
        [sys.executable, "-m", "camcli", *arguments],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )
    return ran.returncode


def explain(folder: Path, photos: Sequence[Path], change: Change, output: str) -> None:
    """Explain the photographs with a change. Exits if camcli fails."""
    base = () if "--batch-size" in change.options else ("--batch-size", "8")
    model = () if "--model" in change.options else ("--model", NETWORK)
    written = ("--save", "map", "--output", output, "--format", "quiet", "--device", "cpu")
    arguments = (*model, *base, *change.options, *written, "--method", change.method)
    names = [str(photo) for photo in photos]
    if run_camcli(folder, change.threads, "explain", *names, *arguments) > 1:
        sys.exit(f"camcli explain failed: {change.name}")


def compare(folder: Path, output: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of `camcli diff`, and its lines."""
    arguments = ("base", output, "--output", f"{output}-diff", "--overwrite", "--format", "quiet")
    status = run_camcli(folder, 1, "diff", *arguments)
    file = folder / f"{output}-diff" / DIFF_FILE
    lines = file.read_text().splitlines() if file.exists() else []
    return status, [json.loads(line) for line in lines]


def measure(folder: Path, photos: Sequence[Path], change: Change, output: str) -> str:
    """One row of the table."""
    explain(folder, photos, change, output)
    status, lines = compare(folder, output)
    verdict = VERDICTS[status]
    if status == 2:  # another method: under the name of the first one, its maps are compared
        results = folder / output / "results.jsonl"
        renamed = f'"method": "{change.method}"', f'"method": "{METHOD}"'
        results.write_text(results.read_text().replace(*renamed))
        status, lines = compare(folder, output)
        verdict = f"{verdict}; under one name: {VERDICTS[status]}"
    return f"| {change.name} | {format_measures(lines)} | {verdict}{format_reasons(lines)} |"


def format_reasons(lines: Sequence[dict[str, Any]]) -> str:
    """The number of images that differ, in all and by kind of reason."""
    differing = sum(line["status"] == "differs" for line in lines)
    kinds = Counter(kind for line in lines for kind in {r["kind"] for r in line["reasons"]})
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    return f": {differing} images ({counts})" if differing else ""


def format_measures(lines: Sequence[dict[str, Any]]) -> str:
    """The cells of all measures."""
    same = sum(line["base"]["class"] == line["new"]["class"] for line in lines)
    change = max(abs(line["score_change"]) for line in lines)
    pearson = compute_low_values(line["pearson"] for line in lines)
    iou = compute_low_values(line["box_iou"] for line in lines)
    return f"{same} of {len(lines)} | {change:.2g} | {pearson} | {iou}"


def count_baseline_bytes(folder: Path) -> str:
    """The bytes of a baseline per image, by kind of file."""
    sizes: dict[str, int] = {}
    for file in folder.rglob("*"):
        kind = "maps" if file.name.endswith(".map.png") else file.name
        sizes[kind] = sizes.get(kind, 0) + file.stat().st_size
    return ", ".join(f"{kind} {size}" for kind, size in sorted(sizes.items()))


def main() -> None:
    """Explain, compare, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    arguments = parser.parse_args()
    found = sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    photos = [photo.resolve() for photo in found[: arguments.limit]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "random_network.py").write_text(RANDOM_MODULE)
        explain(folder, photos, CHANGES[0], "base")
        print(f"{len(photos)} photographs; bytes: {count_baseline_bytes(folder / 'base')}")
        print("| changed | same class | score change up to | Pearson | box IoU | default limits |")
        print("|---|---|---|---|---|---|")
        for number, change in enumerate(CHANGES):
            print(measure(folder, photos, change, f"new{number}"), flush=True)


if __name__ == "__main__":
    main()
