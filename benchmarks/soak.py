"""Whether a long run needs more memory, files or threads than a short one. Linux only.

    python benchmarks/soak.py PHOTOS --counts 200 5000 20000

Each run explains as many pictures, links to those of PHOTOS in turn (or to pictures of noise), in a
process of its own, of which /proc is read twenty times a second: the most resident memory, and open
files and threads once it is at work, in its first and its last third.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image


def _linked(photos: list[Path], folder: Path, count: int) -> None:
    for n, photo in zip(range(count), cycle(photos), strict=False):
        link = folder / f"{n // 1000:03}" / f"{n:06}{photo.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photo.resolve())


def _noise(folder: Path) -> list[Path]:
    drawn = np.random.default_rng(0)
    folder.mkdir()
    for n in range(100):
        small = drawn.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((96, 72)).save(folder / f"{n}.jpg", quality=85)
    return sorted(folder.iterdir())


def _status(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _watched(command: list[str], list_: Path) -> tuple[list[tuple[int, int, int]], float]:
    """Samples of (KiB resident, files, threads) once the first result is there; the peak in MiB."""
    seen: list[tuple[int, int, int]] = []
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            try:
                peak = _status(process.pid, "VmHWM")
                files = len([*Path(f"/proc/{process.pid}/fd").iterdir()])
                if list_.exists() and list_.stat().st_size:
                    own = (_status(process.pid, name) for name in ("VmRSS", "Threads"))
                    resident, threads = own
                    seen.append((resident, files, threads))
            except (OSError, StopIteration):  # it has just ended
                break
            time.sleep(0.05)
        said = process.stderr.read() if process.stderr else ""
    print(said.strip().splitlines()[-1] if said.strip() else "")
    if process.returncode:
        raise SystemExit(f"camcli ended with {process.returncode}: {said[-500:]}")
    return seen, peak / 1024


def main() -> None:
    """Run each count; print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 5000])
    given, extra = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        photos = sorted(given.photos.rglob("*.[jJ]*")) if given.photos else _noise(here / "noise")
        first = 0.0
        for count in given.counts:
            _linked(photos, here / f"in {count}", count)
            output = here / f"out {count}"
            command = [sys.executable, "-m", "camcli", "explain", str(here / f"in {count}")]
            command += ["--output", str(output), "--format", "quiet", *extra]
            seen, peak = _watched(command, output / "results.jsonl")
            first = first or peak
            third = max(1, len(seen) // 3)
            told = [
                f"{name} {max(s[i] for s in seen[:third])} -> {max(s[i] for s in seen[-third:])}"
                for i, name in ((1, "files"), (2, "threads"))
            ]
            lines = sum(1 for _ in (output / "results.jsonl").open())
            print(f"{count}: {lines} lines, peak {peak:.0f} MiB ({peak / first:.3f}),", *told)


if __name__ == "__main__":
    main()
