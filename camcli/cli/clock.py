"""The seconds that the user waits: from the start of the program, with all its imports."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

MAX_START_SECONDS = 600  # a system that tells of a longer start counts time in another way


def _measure_process_age() -> float:
    """Seconds since this process began: from Linux, elsewhere at least those of computing."""
    computed = time.process_time()
    with suppress(OSError, ValueError, IndexError, AttributeError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the machine booted; see proc(5)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        if computed <= age < MAX_START_SECONDS:
            return age
    return computed


_START_SECONDS = time.monotonic() - _measure_process_age()


def measure_waited_seconds() -> float:
    """Seconds since the process began."""
    return time.monotonic() - _START_SECONDS
