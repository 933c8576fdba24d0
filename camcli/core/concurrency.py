"""Threads that prefetch work, and a timer for the phases of a run."""

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
    """A pool of `count` threads; leaving it cancels waiting work and awaits running work."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch_map(
    pool: ThreadPoolExecutor, function: Callable[[In], Out], items: Iterable[In], depth: int
) -> Iterator[Out]:
    """`map` in threads, in order, at most `depth` items ahead; leaving it cancels waiting items."""
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
    """The seconds that one thread spends in each phase; nested time counts for the inner phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    _active_phases: list[str] = field(default_factory=list)
    _last_switch_time: float = 0.0

    @contextmanager
    def measure_phase(self, phase: str) -> Iterator[None]:
        """Count the time inside the context for this phase."""
        self._add_elapsed_time()
        self._active_phases.append(phase)
        try:
            yield
        finally:
            self._add_elapsed_time()
            self._active_phases.pop()

    def iter_timed(self, phase: str, items: Iterable[Out]) -> Iterator[Out]:
        """Yield the items, and count the time that each takes to arrive for this phase."""
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
