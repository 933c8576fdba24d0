"""Does a long run need more memory, files or threads than a short one? Linux only.

    python benchmarks/soak.py PHOTOS --counts 200 5000 20000

For each count, explains as many links to the images of PHOTOS, or to images of noise, in its own
process. Reads /proc twenty times a second. Prints the peak of the resident memory, and the most
open files and threads in the first and in the last third of the run.
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


def _create_links(photos: list[Path], folder: Path, count: int) -> None:
    for n, photo in zip(range(count), cycle(photos), strict=False):
        link = folder / f"{n // 1000:03}" / f"{n:06}{photo.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photo.resolve())


def _create_noise_images(folder: Path) -> list[Path]:
    generator = np.random.default_rng(0)
    folder.mkdir()
    for n in range(100):
        small = generator.integers(0, 255, (6, 8, 3), np.uint8)
        Image.fromarray(small).resize((96, 72)).save(folder / f"{n}.jpg", quality=85)
    return sorted(folder.iterdir())


def _read_status(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _watch(command: list[str], results_file: Path) -> tuple[list[tuple[int, int, int]], float]:
    """Run a command.

    Returns samples of (KiB resident, files, threads) from the first result on, and the peak in MiB.
    """
    samples: list[tuple[int, int, int]] = []
    peak = 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            try:
                peak = _read_status(process.pid, "VmHWM")
                files = len([*Path(f"/proc/{process.pid}/fd").iterdir()])
                if results_file.exists() and results_file.stat().st_size:
                    resident = _read_status(process.pid, "VmRSS")
                    threads = _read_status(process.pid, "Threads")
                    samples.append((resident, files, threads))
            except (OSError, StopIteration):  # the process has just ended
                break
            time.sleep(0.05)
        errors = process.stderr.read() if process.stderr else ""
    print(errors.strip().splitlines()[-1] if errors.strip() else "")
    if process.returncode:
        raise SystemExit(f"camcli ended with {process.returncode}: {errors[-500:]}")
    return samples, peak / 1024


def main() -> None:
    """Run camcli on each count of images; print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photos", type=Path, nargs="?")
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 5000])
    options, extra = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        photos = (
            sorted(options.photos.rglob("*.[jJ]*"))
            if options.photos
            else _create_noise_images(here / "noise")
        )
        first = 0.0
        for count in options.counts:
            _create_links(photos, here / f"in {count}", count)
            output = here / f"out {count}"
            command = [sys.executable, "-m", "camcli", "explain", str(here / f"in {count}")]
            command += ["--output", str(output), "--format", "quiet", *extra]
            samples, peak = _watch(command, output / "results.jsonl")
            first = first or peak
            third = max(1, len(samples) // 3)
            growth = [
                f"{name} {max(s[i] for s in samples[:third])}"
                f" -> {max(s[i] for s in samples[-third:])}"
                for i, name in ((1, "files"), (2, "threads"))
            ]
            lines = sum(1 for _ in (output / "results.jsonl").open())
            print(f"{count}: {lines} lines, peak {peak:.0f} MiB ({peak / first:.3f}),", *growth)


if __name__ == "__main__":
    main()
