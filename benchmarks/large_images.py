"""How much memory does one image take that is just within the limit of --max-pixels? Linux, macOS.

    python benchmarks/large_images.py --copies 4

Explains an image of each kind in a process of its own, then copies of the first kind with eight
threads, and prints the peak of the resident memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.core.types import DEFAULT_MAX_PIXELS

KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PNG, RGB and alpha": ("RGBA", "png", {"compress_level": 1}),
    "PNG, palette": ("P", "png", {"transparency": 0, "compress_level": 1}),
    "PNG, 16 bits": ("I;16", "png", {"compress_level": 1}),
    "TIFF, floating point": ("F", "tif", {"compression": "tiff_deflate"}),
    "JPEG": ("RGB", "jpg", {"quality": 90}),
}
MEASURE = """
import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak // (2**20 if sys.platform == "darwin" else 2**10))
sys.exit(status)
"""


def _save_image(folder: Path, mode: str, suffix: str, options: dict[str, Any]) -> Path:
    side = int(DEFAULT_MAX_PIXELS**0.5)
    path = folder / f"{mode.replace(';', '')}.{suffix}"
    image = Image.new(mode, (side, side))
    if mode == "P":
        image.putpalette(np.arange(768, dtype=np.uint8).tobytes())
    image.save(path, **options)
    return path


def _measure_peak(source: Path, output: Path) -> int:
    """The peak of the resident memory in MiB."""
    camcli = [sys.executable, "-m", "camcli", "explain", str(source), "--output", str(output)]
    command = [sys.executable, "-c", MEASURE, *camcli, "--format", "quiet", "--workers", "8"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a line for each kind of image, and one for several copies."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--copies", type=int, default=4)
    copies = parser.parse_args().copies
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        small = here / "small.png"
        Image.new("RGB", (64, 64)).save(small)
        print(f"64 x 64: {_measure_peak(small, here / 'out')} MiB")
        paths = {name: _save_image(here, *kind) for name, kind in KINDS.items()}
        for n, (name, path) in enumerate(paths.items()):
            print(f"{name}: {_measure_peak(path, here / f'out {n}')} MiB", flush=True)
        (here / "copies").mkdir()
        first = next(iter(paths.values()))
        for n in range(copies):
            (here / "copies" / f"{n}{first.suffix}").symlink_to(first)
        print(f"{copies} copies: {_measure_peak(here / 'copies', here / 'out copies')} MiB")


if __name__ == "__main__":
    main()
