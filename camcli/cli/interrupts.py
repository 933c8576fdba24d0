"""Handle Ctrl-C and SIGTERM: the first one ends the run after the current batch."""

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
    """Whether a signal asked the run to stop, and which signal."""

    is_set: bool = False
    signal_number: int = 0

    @property
    def exit_status(self) -> int:
        """The exit status of a program that was ended by this signal."""
        return 128 + self.signal_number


@contextmanager
def handle_interrupts() -> Iterator[StopFlag]:
    """Turn the first SIGINT or SIGTERM into a request to stop, while the context lasts.

    A second signal acts as before the context. Signals that were ignored stay ignored.
    """
    stop = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    earlier = {number: own for number, own in handlers.items() if own != signal.SIG_IGN}

    def restore_handlers() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def request_stop(number: int, _frame: FrameType | None) -> None:
        stop.is_set, stop.signal_number = True, number
        restore_handlers()
        with suppress(OSError):  # os.write, because the signal may interrupt a print
            os.write(2, STOP_MESSAGE)

    for number in earlier:
        signal.signal(number, request_stop)
    try:
        yield stop
    finally:
        restore_handlers()
