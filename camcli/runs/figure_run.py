"""Compute a figure: thumbnails of the maps of each image, as the rows of a sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath

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
class DrawnImage:
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
        drawn = [DrawnImage(source) for source in sources[start : start + size]]
        for run, state in enumerate(states):
            draw_images(plan, run, drawn, drawing, state)
        for image in drawn:
            yield create_figure_image(plan, image, drawing)


def draw_images(
    plan: FigurePlan,
    run: int,
    images: Sequence[DrawnImage],
    drawing: FigureDrawing,
    state: RunState | None = None,
) -> None:
    """Add what one run gives to each image: its small pictures, or why it failed."""
    config = plan.runs[run]
    by_path = {str(image.source.path): image for image in images}
    draw = partial(draw_result, list_map_names(plan, run), drawing, run, config)
    for outcome in run_pipeline(config, [image.source for image in images], draw, state):
        image = by_path[outcome.path]
        if isinstance(outcome, Failure):
            image.failures[run] = outcome.reason
        else:
            image.results[run, outcome.request] = outcome


def create_figure_image(plan: FigurePlan, image: DrawnImage, drawing: FigureDrawing) -> FigureImage:
    """Put together the rows of an image from all that was drawn of it."""
    painter = _RowPainter(plan, drawing, image)
    return FigureImage(image.source, tuple(painter.iter_rows()), tuple(painter.iter_problems()))


def list_map_names(plan: FigurePlan, run: int) -> list[tuple[int, str | None]]:
    """The requests and maps of a run that the figure shows."""
    cells = [cell for column in plan.columns for cell in column.cells if cell and cell.run == run]
    return list(dict.fromkeys((cell.request, cell.map_name) for cell in cells))


@dataclass(frozen=True, slots=True)
class _RowPainter:
    """Puts together the rows of one image."""

    plan: FigurePlan
    drawing: FigureDrawing
    image: DrawnImage

    def iter_rows(self) -> Iterator[FigureRow]:
        """The rows of `--rows`; all of them for each class, unless classes are columns."""
        counts = [len(result.classes) for result in self.image.results.values()]
        count = 1 if self.plan.has_class_columns else max(counts, default=1)
        for number in range(count):
            for row in range(len(self.plan.row_heads)):
                groups = [self._create_group(c, row, number) for c in self.plan.columns]
                yield FigureRow(self._create_label(row, number), tuple(groups))

    def iter_problems(self) -> Iterator[str]:
        """What is missing: why a run failed, or a map has no answer."""
        yield from dict.fromkeys(self.image.failures.values())
        for (run, request), result in self.image.results.items():
            method = self.plan.runs[run].requests[request].method.name
            for drawn in result.classes:
                for name, reason in drawn.reasons.items():
                    layer = f", {name}" if name else ""
                    yield f"no map ({method} of {drawn.label or 'any class'}{layer}): {reason}"

    def _create_group(
        self, column: FigureColumn, row: int, number: int
    ) -> tuple[SheetCell | None, ...]:
        """The pictures of one column; `number` is the class where classes are rows."""
        cell = column.cells[row]
        if column.is_image and row == number == 0:
            return (SheetCell(self._find_thumbnail()),)
        if cell is None:
            return (None,)
        result = self.image.results.get((cell.run, cell.request))
        if result is None:
            reason = self.image.failures.get(cell.run, "")
            return (SheetCell(draw_missing_map(self._find_thumbnail(), reason), ("failed",)),)
        chosen = result.classes if column.target else result.classes[number : number + 1]
        return tuple(self._create_cell(column, cell, drawn) for drawn in chosen) or (None,)

    def _create_cell(self, column: FigureColumn, cell: FigureCell, drawn: DrawnClass) -> SheetCell:
        reason = drawn.reasons.get(cell.map_name)
        has_class = self.plan.has_captions and cell.is_class_specific
        return SheetCell(
            image=drawn.pictures[cell.map_name],
            caption=(f"no map: {reason}" if reason else "", drawn.label if has_class else ""),
            score=drawn.score if has_class else "",
            is_framed=bool(column.target) and drawn.is_predicted,
        )

    def _find_thumbnail(self) -> Image.Image:
        """The image, drawn small; grey if no run could read it."""
        for result in self.image.results.values():
            return result.thumbnail
        return Image.new("RGB", fit_cell(MISSING_SHAPE, self.drawing.side), MISSING_COLOR)

    def _create_label(self, row: int, number: int) -> tuple[str, ...]:
        """Class and score, unless each picture says its own; the image; the row's head."""
        head = self.plan.row_heads[row]
        name = str(PurePath(self.image.source.name).with_suffix(""))
        results = self.image.results.values()
        if row:
            return (head,)
        if not results:
            return name, "failed", head
        if self.plan.has_captions:
            return name, head
        drawn = next(r.classes[number] for r in results if number < len(r.classes))
        return drawn.label, drawn.score, name if self.drawing.has_names else "", head
