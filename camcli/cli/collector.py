"""Spare Python's garbage collector the objects that a start makes and that nobody ever frees."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pause_collection() -> Iterator[None]:
    """Inside the context, Python looks for no garbage in cycles.

    While torch is imported the collector would look through hundreds of thousands of objects again
    and again: a tenth of a start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def exempt_imported_objects() -> None:
    """Let the collector skip all objects of now, also when Python ends.

    Only the first call counts: later there are networks, which must be freed.
    """
    if not gc.get_freeze_count():
        gc.freeze()
