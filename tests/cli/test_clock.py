"""The summary tells the seconds that the user waited, with the imports."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from conftest import PHOTOS

IDLE = 3.0  # seconds that the process waits before it imports camcli
LATE_START = f"""
import time
time.sleep({IDLE})
from camcli.cli.app import main
raise SystemExit(main())
"""


def test_the_seconds_are_those_of_the_whole_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LATE_START, "explain", str(PHOTOS[0]), "--save", "boxes"]
    start = time.monotonic()
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    waited = time.monotonic() - start
    found = re.search(r"^1 image in (\S+) s \(network (\S+) s; (\S+) a second", ran.stderr, re.M)
    assert found
    told, network, speed = map(float, found.groups())
    assert IDLE < told < waited + 0.1
    assert IDLE + network < told + 0.1  # the network did not run while the process waited
    assert IDLE + 1 / speed < told + 0.1  # the speed counts from the first image
