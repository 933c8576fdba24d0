"""Maps against boxes: every image scored once, summed a row at a time, the worst kept in mind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from camcli.core.errors import ImageError
from camcli.evaluation import baselines
from camcli.evaluation.datasets.annotations import Placed, Problem, Truth, place
from camcli.evaluation.datasets.exif import upright
from camcli.evaluation.datasets.registry import Item
from camcli.evaluation.metrics.aggregation import Tally, weights
from camcli.evaluation.metrics.scoring import SIDE, Score, heat, score
from camcli.evaluation.predictions import Given, Produce, Row
from camcli.io import images


@dataclass(frozen=True, slots=True)
class Scored:
    """One row's score of one image."""

    row: Row
    item: Item
    score: Score
    status: str
    rank: int | None


@dataclass(slots=True)
class Board:
    """What a run has found so far. Of an image it keeps one IoU a row, to choose examples by."""

    resamples: int = 1000
    seed: int = 0
    tallies: dict[Row, Tally] = field(default_factory=dict)
    blank: dict[Row, int] = field(default_factory=dict)
    overlaps: dict[Row, dict[int, float]] = field(default_factory=dict)

    def add(self, scored: Scored) -> None:
        """Take in one score."""
        weight = weights(scored.item.truth.image, self.resamples, self.seed)
        self.tallies.setdefault(scored.row, Tally()).add(weight, scored.score.counts)
        self.blank[scored.row] = self.blank.get(scored.row, 0) + (scored.status != "ok")
        if not scored.row.baseline:
            self.overlaps.setdefault(scored.row, {})[scored.item.number] = scored.score.iou


Found = Scored | Problem


def run(
    produce: Produce[list[Found]], items: Sequence[Item], rows: Sequence[Row], seed: int
) -> Iterator[Found]:
    """Every score and every Problem, image by image; the baselines beside the first row."""

    def use(given: Given) -> list[Found]:
        return list(_judged(given, given.row == rows[0], seed))

    for outcome in produce(items, rows, use):
        yield from [outcome] if isinstance(outcome, Problem) else outcome


def _judged(given: Given, first: bool, seed: int) -> Iterator[Found]:
    placed, problems = placed_truth(given.item.truth, given.picture.size)
    if first:  # what ails the truth is said once an image, not once a row
        yield from problems
    if placed is None:
        return
    maps = {given.row: heat(given.values)}
    if first:
        maps[baseline(given.row, "gaussian")] = baselines.centre()
        maps[baseline(given.row, "random")] = baselines.random(given.item.truth.image, seed)
    for row, found in maps.items():
        judged = score(
            found, placed, row.threshold, given.rank, None if row.baseline else given.boxes
        )
        status = "ok" if row.baseline else given.status
        yield Scored(row, given.item, judged, status, given.rank)


@lru_cache(maxsize=64)  # the rows of an image come one after another, and masks are slow to read
def placed_truth(stored: Truth, size: tuple[int, int]) -> tuple[Placed | None, list[Problem]]:
    """The truth of an image of that size (W, H) on the canvas, turned with it, and its Problems."""
    truth = upright(stored, images.turned(stored.path), size)
    try:
        return place(truth, size, SIDE)
    except ImageError as error:
        return None, [Problem("annotation cannot be read", truth.image, str(error))]


def baseline(row: Row, name: str) -> Row:
    """The baseline that stands beside a model's rows."""
    return Row(row.model, name, (), row.threshold, baseline=True)


def examples(overlaps: dict[int, float], count: int) -> dict[str, list[int]]:
    """The numbers of the images whose box fits worst, middling and best: `count` of each at most.

    None is shown twice while there are three.
    """
    count = min(count, max(1, len(overlaps) // 3))
    order = sorted(overlaps, key=lambda number: (overlaps[number], number))
    middle = max(0, len(order) // 2 - count // 2)
    return {
        "worst": order[:count],
        "median": order[middle : middle + count],
        "best": order[::-1][:count],
    }
