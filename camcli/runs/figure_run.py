"""Compute a figure: thumbnails of the maps of each image, as the rows of a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from PIL import Image

from camcli.core.types import Failure, ImageSource
from camcli.io.drawing import draw_missing_map
from camcli.io.sheet_layout import SheetCell, fit_cell
from camcli.runs.figure_pictures import DrawnClass, DrawnResult, FigureDrawing, draw_result
from camcli.runs.figure_plan import FigureCell, FigureColumn, FigurePlan
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunState

MIN_CHUNK = 16  # images that go through every run before the next images
Source = ImageSource | Failure
MISSING_SHAPE, MISSING_COLOR = (4, 3), (230, 230, 230)  # of the picture of an unreadable image


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One row: the lines at its left, and the pictures of each column.

    A column of classes has a picture for each class.
    """

    label: tuple[str, ...]
    groups: tuple[tuple[SheetCell | None, ...], ...]


@dataclass(frozen=True, slots=True)
class FigureImage:
    """The rows of one image, and what is missing in them, each as one sentence."""

    source: Source
    rows: tuple[FigureRow, ...]
    problems: tuple[str, ...]


@dataclass(slots=True)
class _DrawnImage:
    """All that was drawn of one image: its results by run and request, or why a run failed."""

    source: Source
    results: dict[tuple[int, int], DrawnResult] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


def iter_figure_images(
    plan: FigurePlan, sources: Sequence[Source], drawing: FigureDrawing
) -> Iterator[FigureImage]:
    """Compute the rows of every image, in order; only thumbnails are kept.

    Each run takes some images before the next run takes the same ones, so that rows are complete
    early. Raises StorageError when memory or disk are exhausted.
    """
    states = [RunState.from_config(config) for config in plan.runs]
    size = max(MIN_CHUNK, *(config.batch_size for config in plan.runs))
    for start in range(0, len(sources), size):
        chunk = sources[start : start + size]
        drawn = {str(source.path): _DrawnImage(source) for source in chunk}
        for run, (config, state) in enumerate(zip(plan.runs, states, strict=True)):
            finish = partial(draw_result, _list_map_names(plan, run), drawing, run, config)
            for outcome in run_pipeline(config, chunk, finish, state):
                image = drawn[outcome.path]
                if isinstance(outcome, Failure):
                    image.failures[run] = outcome.reason
                else:
                    image.results[run, outcome.request] = outcome
        for image in drawn.values():
            yield _create_image(plan, image, drawing)


def _list_map_names(plan: FigurePlan, run: int) -> list[tuple[int, str | None]]:
    """The requests and maps of a run that the figure shows."""
    cells = [cell for column in plan.columns for cell in column.cells if cell and cell.run == run]
    return list(dict.fromkeys((cell.request, cell.map_name) for cell in cells))


def _create_image(plan: FigurePlan, image: _DrawnImage, drawing: FigureDrawing) -> FigureImage:
    counts = [len(result.classes) for result in image.results.values()]
    count = 1 if plan.has_class_columns else max(counts, default=1)
    rows = [
        _create_row(plan, image, drawing, row, number)
        for number in range(count)
        for row in range(len(plan.row_heads))
    ]
    return FigureImage(image.source, tuple(rows), tuple(_list_problems(plan, image)))


def _create_row(
    plan: FigurePlan, image: _DrawnImage, drawing: FigureDrawing, row: int, number: int
) -> FigureRow:
    """The row of an image for one entry of `--rows` and one class."""
    is_first = row == number == 0
    return FigureRow(
        label=_format_label(plan, image, drawing, row, number),
        groups=tuple(
            _create_group(plan, column, image, drawing, row, number)
            if column.cells[row] or is_first
            else (None,)
            for column in plan.columns
        ),
    )


def _create_group(
    plan: FigurePlan,
    column: FigureColumn,
    image: _DrawnImage,
    drawing: FigureDrawing,
    row: int,
    number: int,
) -> tuple[SheetCell | None, ...]:
    cell = column.cells[row]
    if cell is None:
        return (SheetCell(_find_thumbnail(image, drawing)),)
    result = image.results.get((cell.run, cell.request))
    if result is None:
        reason = image.failures.get(cell.run, "")
        missing = draw_missing_map(_find_thumbnail(image, drawing), reason)
        return (SheetCell(missing, "failed"),)
    if column.target:
        return tuple(_create_cell(plan, cell, each, column) for each in result.classes)
    if number >= len(result.classes):
        return (None,)
    return (_create_cell(plan, cell, result.classes[number], column),)


def _create_cell(
    plan: FigurePlan, cell: FigureCell, drawn: DrawnClass, column: FigureColumn
) -> SheetCell:
    reason = drawn.reasons.get(cell.map_name)
    caption = drawn.caption if plan.has_captions else ""
    return SheetCell(
        image=drawn.pictures[cell.map_name],
        caption=f"no map: {reason}" if reason else caption,
        is_framed=bool(column.target) and drawn.is_predicted,
    )


def _find_thumbnail(image: _DrawnImage, drawing: FigureDrawing) -> Image.Image:
    """The image, drawn small; grey if no run could read it."""
    for result in image.results.values():
        return result.thumbnail
    return Image.new("RGB", fit_cell(MISSING_SHAPE, drawing.side), MISSING_COLOR)


def _format_label(
    plan: FigurePlan, image: _DrawnImage, drawing: FigureDrawing, row: int, number: int
) -> tuple[str, ...]:
    """Class and score, unless each picture says its own; the name of the image; the row's head."""
    head = plan.row_heads[row]
    if row:
        return (head,)
    name = image.source.name
    if not image.results:
        return name, "failed", head
    if plan.has_captions:
        return name, head
    classes = [r.classes[number] for r in image.results.values() if number < len(r.classes)]
    score = f"{classes[0].score:.2f}"
    return classes[0].label, score, name if drawing.has_names else "", head


def _list_problems(plan: FigurePlan, image: _DrawnImage) -> Iterator[str]:
    yield from dict.fromkeys(image.failures.values())
    for (run, request), result in image.results.items():
        method = plan.runs[run].requests[request].method.name
        for drawn in result.classes:
            for name, reason in drawn.reasons.items():
                layer = f", {name}" if name else ""
                yield f"no map ({method} of {drawn.label}{layer}): {reason}"
