"""Work in threads around a computation, and where the time goes. Knows nothing of images."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@contextmanager
def open_thread_pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """So many threads, which have ended when the context does; what has not begun never will."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch_map(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], depth: int
) -> Iterator[Out]:
    """`map` that keeps up to `depth` items under way in threads, in order, and cancels on exit."""
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            while waiting and (waiting[0].done() or len(waiting) > depth):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@dataclass(slots=True)
class PhaseTimer:
    """Where the seconds of one thread go: each counts once, for the innermost thing under way."""

    seconds: dict[str, float] = field(default_factory=dict)
    _active_phases: list[str] = field(default_factory=list)
    _last_switch_time: float = 0.0

    @contextmanager
    def measure_phase(self, phase: str) -> Iterator[None]:
        """Inside the context the time is spent on this."""
        self._add_elapsed_time()
        self._active_phases.append(phase)
        try:
            yield
        finally:
            self._add_elapsed_time()
            self._active_phases.pop()

    def iter_timed(self, phase: str, items: Iterable[Out]) -> Iterator[Out]:
        """The items; the time is spent on this until each is there."""
        source = iter(items)
        while True:
            with self.measure_phase(phase):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item

    def _add_elapsed_time(self) -> None:
        now = time.monotonic()
        if self._active_phases:
            last = self._active_phases[-1]
            self.seconds[last] = self.seconds.get(last, 0.0) + now - self._last_switch_time
        self._last_switch_time = now
