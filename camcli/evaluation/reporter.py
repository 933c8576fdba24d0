"""How an evaluation reports to its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from camcli.evaluation.datasets.annotations import Problem


@contextmanager
def _ignore_progress(_total: int) -> Iterator[Callable[[], None]]:
    yield lambda: None


@dataclass(frozen=True, slots=True)
class EvaluationReporter:
    """Callbacks by which an evaluation reports to its caller; by default they do nothing.

    `track_progress(total)` yields a function to call after each of `total` steps.
    `report_problem` gets each problem once, and `report_progress` the name of a
    longer step before it starts. `report_result` gets the report, complete or not,
    after its files are written.
    """

    track_progress: Callable[[int], AbstractContextManager[Callable[[], None]]] = _ignore_progress
    report_problem: Callable[[Problem], None] = lambda _problem: None
    report_progress: Callable[[str], None] = lambda _text: None
    report_result: Callable[[Any], None] = lambda _report: None
