"""What camcli's quick answers cost, as a multiple of importing Typer and Rich.

    python benchmarks/startup.py

Each command is a process of its own; the two take turns, so that a busy machine slows both. User
and system CPU seconds of the whole process; medians of eleven.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from statistics import median

BASELINE = ["-c", "import typer, rich"]
COMMANDS = ("--help", "--version", "explain --help", "methods", "explain missing.jpg")
ROUNDS = 11


def measure_cpu_seconds(arguments: list[str]) -> float:
    """User and system seconds of one run of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line for each command."""
    for command in COMMANDS:
        arguments = ["-m", "camcli", *command.split()]
        measure_cpu_seconds(arguments)  # writes byte code and fills the file cache
        pairs = [
            (measure_cpu_seconds(arguments), measure_cpu_seconds(BASELINE)) for _ in range(ROUNDS)
        ]
        ratio = median(own / base for own, base in pairs)
        seconds = median(own for own, _ in pairs)
        print(f"camcli {command:<20} {seconds:.3f} s  {ratio:.1f} times the imports")


if __name__ == "__main__":
    main()
