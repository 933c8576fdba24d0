"""The summary tells the seconds that the user waited, with the imports."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from conftest import PHOTOS


def test_the_seconds_are_those_of_the_whole_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "camcli", "explain", str(PHOTOS[0]), "--save", "boxes"]
    start = time.monotonic()
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    waited = time.monotonic() - start
    found = re.search(r"^1 image in (\S+) s \(network (\S+) s; (\S+) a second", ran.stderr, re.M)
    assert found
    told, network, speed = map(float, found.groups())
    assert 0.6 * waited < told < waited + 0.1  # the rest is the end of the process
    assert network < told / 2
    assert 1 / speed < told / 2  # after the start
