"""Ctrl-C, and what schedulers send: finish what is under way; at once if asked again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

STOP_MESSAGE = b"\ncamcli: stopping after the current batch; press Ctrl-C again to stop now\n"


@dataclass(slots=True)
class StopFlag:
    """Whether a run is to end early, and the signal that asked for it, if one did."""

    is_set: bool = False
    signal_number: int = 0

    @property
    def exit_status(self) -> int:
        """The exit status of a program that a signal has ended."""
        return 128 + self.signal_number


@contextmanager
def handle_interrupts() -> Iterator[StopFlag]:
    """Inside the context a first interrupt only asks for a stop; ignored signals stay so."""
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    wanted = [signal.SIGINT, signal.SIGTERM]
    before = {number: signal.getsignal(number) for number in wanted}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def ask(number: int, _frame: FrameType | None) -> None:
        stop.is_set, stop.signal_number = True, number
        for each, handler in before.items():
            signal.signal(each, handler)
        with suppress(OSError):  # not by print, in the midst of which this may have come
            os.write(2, STOP_MESSAGE)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
