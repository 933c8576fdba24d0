"""The columns and rows of a figure: what lies in each cell, and the runs that compute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from camcli.core.errors import UsageError
from camcli.engine.request import Request
from camcli.runs.run_config import RunConfig

MapKey = tuple[str | None, str | None]  # the name of a map, and how it is drawn


@dataclass(frozen=True, slots=True)
class FigureCell:
    """A map of a figure: the number of its run, its request, and its name; None is the whole map.

    `map_name` is the name of a layer or of a part. `drawing` is one of `DRAWINGS`, or None for a
    map over the image.
    """

    run: int
    request: int
    map_name: str | None
    is_class_specific: bool
    drawing: str | None = None

    @property
    def key(self) -> MapKey:
        """What tells the pictures of one result apart."""
        return self.map_name, self.drawing


@dataclass(frozen=True, slots=True)
class RefusedCell:
    """A cell whose method does not suit the network."""

    reason: str


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """A column: its head, and its cell in each row of an image; None leaves it empty.

    A column of images has no cells, and a refused cell is crossed out. With a `target` there is a
    picture for each of its classes.
    """

    head: str
    cells: tuple[FigureCell | RefusedCell | None, ...]
    target: str | None = None
    is_image: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the column has no map at all."""
        return not self.is_image and not any(isinstance(cell, FigureCell) for cell in self.cells)


@dataclass(frozen=True, slots=True)
class FigurePlan:
    """The columns and rows of a figure, and the runs that compute it.

    An image takes a row for each entry of `row_heads`. With `has_captions` each picture says its
    class, because the classes of a row differ. `left_out` has the reason for each method that does
    not suit a network.
    """

    columns: tuple[FigureColumn, ...]
    row_heads: tuple[str, ...]
    runs: tuple[RunConfig, ...]
    has_captions: bool
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_class_columns(self) -> bool:
        """Whether the classes of an image lie in columns; otherwise each is a row."""
        return any(column.target for column in self.columns)

    @property
    def colored_requests(self) -> list[Request]:
        """The requests of all maps that a colour bar can explain."""
        cells = [cell for column in self.columns for cell in column.cells]
        return [
            self.runs[cell.run].requests[cell.request]
            for cell in cells
            if isinstance(cell, FigureCell) and not cell.drawing
        ]

    def name_columns(self, heads: Sequence[str]) -> FigurePlan:
        """The plan with these heads, unless empty, and without columns that have no map.

        Raises UsageError if the heads are not as many as the columns.
        """
        if heads and len(heads) != len(self.columns):
            raise UsageError(f"--titles has {len(heads)} words for {len(self.columns)} columns")
        named = [
            replace(column, head=head)
            for column, head in zip(
                self.columns, heads or [column.head for column in self.columns], strict=True
            )
        ]
        return replace(self, columns=tuple(column for column in named if not column.is_refused))


RequestIdentity = tuple[str, tuple[str, ...]]


def identify_request(request: Request) -> RequestIdentity:
    """What tells the requests of a run apart, and is known of a result too."""
    return request.method.name, tuple(layer.name for layer in request.source_layers)
