"""Several methods on one image, each by itself and timed: side by side, and how alike they are.

Knows nothing of the command line or of files.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from camcli.core.errors import MethodError
from camcli.core.geometry import Floats, upsample, visible
from camcli.core.types import Explanation, Failed, Result, Source
from camcli.engine.request import Request
from camcli.io import results
from camcli.io import writers as outputs
from camcli.io.drawing import Cell, cell_size, grid, matrix, stacked
from camcli.methods.registry import Method
from camcli.runs import batch as batches
from camcli.runs import pipeline
from camcli.runs.config import Course, Job

COMMON = (64, 64)  # cells at which maps of any size are ranked
COLUMNS = 8  # pictures a row where nothing asks for more


@dataclass(frozen=True, slots=True)
class Row:
    """One model on given layers, and each method's job in it; None where a method has no place.

    `of_model` and `of_layers` tell it from other rows, where there are; `refused` says why a method
    has no place, by its name.
    """

    of_model: str
    of_layers: str
    base: Job
    jobs: tuple[Job | None, ...]
    refused: Mapping[str, str]

    @property
    def label(self) -> str:
        """What the row is of, in words."""
        return " · ".join(filter(None, (self.of_model, self.of_layers)))

    def only(self, columns: Sequence[int]) -> Row:
        """With some of the methods."""
        return replace(self, jobs=tuple(self.jobs[c] for c in columns))


def row(
    of_model: str,
    of_layers: str,
    job: Job,
    methods: Sequence[Method],
    planned: Mapping[str, tuple[Request, ...] | MethodError],
) -> Row:
    """Each method by itself, as it is planned under its name; where it is not there is none."""
    found = [planned.get(m.name) for m in methods]
    jobs = (replace(job, requests=own[:1]) if isinstance(own, tuple) else None for own in found)
    refused = {name: str(why) for name, why in planned.items() if isinstance(why, MethodError)}
    return Row(of_model, of_layers, job, tuple(jobs), refused)


@dataclass(frozen=True, slots=True)
class Look:
    """What one method found in an image, and the seconds that it took without reading it."""

    row: int
    column: int
    result: Result
    seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """All looks at an image, and for each target how alike their maps are.

    `spearman` is (T,N,N) in the order of the looks; NaN where a map is blank.
    """

    source: Source
    looks: tuple[Look, ...]
    spearman: NDArray[np.float64]


def compare(rows: Sequence[Row], item: Source | Failed) -> Compared | Failed:
    """Every method of every row on one image; Failed if any cannot be had of it."""
    if isinstance(item, Failed):
        return item
    looks = []
    for r, row in enumerate(rows):
        sample = None
        for c, job in enumerate(row.jobs):
            if job is None:
                continue
            sample = sample or pipeline.read(job, item)
            if isinstance(sample, Failed):
                return sample
            began = time.perf_counter()
            (outcome,) = batches.outcomes(job, [sample], Course.of(job))[0]
            if isinstance(outcome, Failed):
                return outcome
            looks.append(Look(r, c, pipeline.boxed(job, outcome), time.perf_counter() - began))
    targets = range(len(looks[0].result.explanations))
    sizes = [row.base.model.input_size for row in rows]
    alike = [spearman([_common(look, t, sizes[look.row]) for look in looks]) for t in targets]
    return Compared(item, tuple(looks), np.stack(alike))


def _common(look: Look, target: int, size: tuple[int, int]) -> Floats | None:
    fused = look.result.explanations[target].fused
    if fused.status != "ok":
        return None
    part = visible(fused.shown, look.result.sample.view, size)
    return upsample(part, COMMON)


def spearman(maps: Sequence[Floats | None]) -> NDArray[np.float64]:
    """Rank correlation of each pair of maps: N maps -> (N,N); NaN with one that is blank."""
    ranks = np.full((len(maps), COMMON[0] * COMMON[1]), np.nan)
    for n, values in enumerate(maps):
        if values is not None and np.ptp(values) > 0:
            ranked = rankdata(values) - (ranks.shape[1] + 1) / 2
            ranks[n] = ranked / np.linalg.norm(ranked)
    alike: NDArray[np.float64] = ranks @ ranks.T
    return alike


def picture(found: Compared, target: int, names: Sequence[str], rows: Sequence[Row]) -> bytes:
    """The image, every map with its milliseconds, and the matrix of correlations, as a JPEG."""
    first = found.looks[0].result
    small = first.sample.picture.resize(cell_size(*first.sample.picture.size))
    placed: dict[tuple[int, int], Cell] = {}
    for look in found.looks:
        size = rows[look.row].base.model.input_size
        shown = _overlaid(look.result, look.result.explanations[target], small, size)
        label = f"{names[look.column]}  {1000 * look.seconds:.0f} ms"
        placed[look.row, look.column] = Cell(label, shown)
    blank = Cell("", Image.new("RGB", small.size, (255, 255, 255)))
    columns = range(len(names))
    table = [
        [_first(found, r, row, target, small), *(placed.get((r, c), blank) for c in columns)]
        for r, row in enumerate(rows)
    ]
    if len(rows) == 1:
        table = [table[0][n : n + COLUMNS] for n in range(0, len(table[0]), COLUMNS)]
    about = first.explanations[target]
    sheet = grid(f"{about.label} {about.score:.2f}", table)
    labels = [
        " · ".join(filter(None, (_row_of(look, rows[look.row]), names[look.column])))
        for look in found.looks
    ]
    if len(labels) > 1:
        side = matrix("Spearman's correlation", labels, found.spearman[target])
        sheet = stacked(sheet, side)
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _first(found: Compared, r: int, row: Row, target: int, small: Image.Image) -> Cell:
    """The image, with what the row is of; and its class, for models may see different ones."""
    own = [look.result.explanations[target] for look in found.looks if look.row == r]
    parts = (row.label, own[0].label if own and row.label else "")
    return Cell(" · ".join(filter(None, parts)) or "image", small)


def _overlaid(
    result: Result, shown: Explanation, small: Image.Image, size: tuple[int, int]
) -> Image.Image:
    view = result.sample.view.scaled(*small.size)
    return outputs.answer(result, shown, small, view, outputs.Style(size))


def describe(
    found: Compared, target: int, names: Sequence[str], rows: Sequence[Row]
) -> dict[str, Any]:
    """One line of compare.jsonl."""
    return {
        **results.about(found.looks[0].result.sample),
        "maps": [_map(look, target, names, rows) for look in found.looks],
        "spearman": [
            [None if np.isnan(value) else round(float(value), 4) for value in row]
            for row in found.spearman[target]
        ],
    }


def _map(look: Look, target: int, names: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "method": names[look.column],
        "row": _row_of(look, rows[look.row]),
        "model": rows[look.row].base.model.name,
        "layers": list(look.result.layers),
        "milliseconds": round(1000 * look.seconds, 1),
        **results.describe_class(look.result.explanations[target]),
    }


def _row_of(look: Look, row: Row) -> str:
    """What tells its row from the others: not the layers, where the method reads its own."""
    job = row.jobs[look.column]
    layered = job is not None and job.requests[0].method.per_layer
    return " · ".join(filter(None, (row.of_model, row.of_layers if layered else "")))
