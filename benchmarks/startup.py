"""What starting camcli costs, as a multiple of importing the packages that it cannot do without.

    python benchmarks/startup.py
    python benchmarks/startup.py --timm weights.pth   # a network of timm's from a file of weights

Each command is a process of its own; a command and its imports take turns, so that a busy machine
slows both. User and system CPU seconds of the whole process; medians of eleven. Byte code is
written before: an installed camcli has it too.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

PHOTO = Path(__file__).parent.parent / "sample_images" / "chelsea.jpg"
QUICK_COMMANDS = ("--help", "--version", "explain --help", "methods", "explain missing.jpg")
BUILTIN_RUNS = (
    *("", "--method layercam", "--method cam", "--method tscam", "--method chefer"),
    *("--method attention", "--method gradcam --model vit_lite0"),
)
ROUNDS = 11


@dataclass(frozen=True, slots=True)
class Comparison:
    """Commands of camcli, and the imports with which each is compared."""

    imports: str
    commands: Sequence[str]


def measure_cpu_seconds(arguments: Sequence[str], folder: str) -> float:
    """User and system seconds of one run of Python in a folder."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], capture_output=True, check=False, env=kept, cwd=folder
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_command(command: str, imports: str) -> tuple[float, float, float]:
    """Median seconds of a command and of the imports, and the median of their ratios."""
    arguments = ["-m", "camcli", *command.split()]
    baseline = ["-c", f"import {imports}"]
    with TemporaryDirectory() as folder:
        for each in (arguments, baseline):
            measure_cpu_seconds(each, folder)  # writes byte code and fills the file cache
        pairs = [
            (measure_cpu_seconds(arguments, folder), measure_cpu_seconds(baseline, folder))
            for _ in range(ROUNDS)
        ]
    own, base = (median(column) for column in zip(*pairs, strict=True))
    return own, base, median(one / other for one, other in pairs)


def list_comparisons(timm_weights: Path | None) -> list[Comparison]:
    """What is measured; a network of timm's only with a file of weights."""
    explain = f"explain {PHOTO} --output out --overwrite"
    found = [
        Comparison("typer, rich", QUICK_COMMANDS),
        Comparison("torch", [f"{explain} {options}" for options in BUILTIN_RUNS]),
    ]
    if timm_weights:
        found.append(Comparison("timm", [f"{explain} --checkpoint {timm_weights.resolve()}"]))
    return found


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timm", type=Path, metavar="FILE", help="weights of a network of timm's")
    for comparison in list_comparisons(parser.parse_args().timm):
        print(f"as a multiple of `import {comparison.imports}`:")
        for command in comparison.commands:
            own, base, ratio = measure_command(command, comparison.imports)
            shown = command.replace(f"{PHOTO} --output out --overwrite", "photo.jpg")
            print(f"  camcli {shown:<55} {own:.3f} s / {base:.3f} s = {ratio:.2f}")


if __name__ == "__main__":
    main()
