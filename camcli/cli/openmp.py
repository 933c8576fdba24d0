"""Let idle threads of OpenMP sleep soon: on a busy machine, a run takes far less time."""

from __future__ import annotations

import os

SPIN_COUNT = "1000"  # libgomp's own choice where it has more threads than cores


def limit_spinning() -> None:
    """Tell libgomp, torch's OpenMP on Linux, how long a thread may spin; before torch is imported.

    A thread that waits for others spins for 300 000 rounds by default, to be quick after an instant
    alone. If another process holds a core, nearly all of these rounds are lost: the built-in
    network then takes several times as long. Results do not change. A value that the user has set
    stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
