"""One sheet of the images of a run: `camcli explain --save sheet`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from camcli.core.types import Failure, ImageSource, Result
from camcli.engine.request import Request
from camcli.io.bar_scales import create_bar_scale
from camcli.io.files import format_page_path, write_file
from camcli.io.sheet_layout import SheetStyle
from camcli.io.sheets import SAVE_OPTIONS, encode_sheets
from camcli.io.writers import DrawingStyle
from camcli.methods.registry import Method
from camcli.runs.figure_heads import format_layer, format_method_title
from camcli.runs.figure_layers import has_block_maps
from camcli.runs.figure_pages import estimate_column_count, has_color_bar, iter_pages
from camcli.runs.figure_pictures import FigureDrawing, draw_result
from camcli.runs.figure_plan import depends_on_class
from camcli.runs.figure_run import (
    DrawnImage,
    FigureRow,
    create_figure_image,
    draw_images,
    list_map_keys,
)
from camcli.runs.figure_table import FigureCell, FigureColumn, FigurePlan
from camcli.runs.run_config import RunConfig

MAX_IMAGES = 24  # from the first on; `camcli figure` draws all, on pages
SCREEN_STYLE = SheetStyle(width=10, dpi=150, max_height=100)  # legible on a screen


@dataclass(frozen=True, slots=True)
class ExplainSheet:
    """The sheet of a run: a row for each image and class, a column for each map.

    Small pictures of each result are kept while the run goes on. Images that an earlier run has
    done are explained again for the sheet.
    """

    plan: FigurePlan
    style: SheetStyle
    drawing: FigureDrawing
    images: Sequence[DrawnImage]
    image_by_path: dict[str, DrawnImage] = field(default_factory=dict)

    @classmethod
    def from_config(
        cls, config: RunConfig, sources: Sequence[ImageSource | Failure], style: DrawingStyle
    ) -> ExplainSheet:
        """Plan the sheet of a run before it starts."""
        plan = _create_plan(config)
        columns = estimate_column_count(plan)
        sheet = replace(
            SCREEN_STYLE,
            has_bar=has_color_bar(plan, style.colormap),
            scale=create_bar_scale(style),
            min_columns=columns,
        )
        images = [DrawnImage(source) for source in sources[:MAX_IMAGES]]
        drawing = FigureDrawing(sheet.compute_cell_pixels(columns), [style], has_names=True)
        return cls(plan, sheet, drawing, images, {str(i.source.path): i for i in images})

    def collect_from(self, write_files: Callable[[Result], Result]) -> Callable[[Result], Result]:
        """Make a function that writes files of a result also keep its small pictures."""

        def write(result: Result) -> Result:
            self._add_result(result)
            return write_files(result)

        return write

    def _add_result(self, result: Result) -> None:
        image = self.image_by_path.get(str(result.sample.source.path))
        if image:
            names, config = list_map_keys(self.plan, 0), self.plan.runs[0]
            drawn = draw_result(names, self.drawing, 0, config, result)
            image.results[0, drawn.request] = drawn

    def write(self, output: Path) -> str:
        """Write the sheet below `output`, and return its name. Raises OutputError.

        Rows that do not fit (there are 1000 with `--target all`) go to `sheet-page2.png` and on.
        """
        count = len(self.plan.runs[0].requests)
        missing = [image for image in self.images if len(image.results) < count]
        if missing:
            draw_images(self.plan, 0, missing, self.drawing)
        (style,) = self.drawing.style_by_run
        ending = style.image_format if style.image_format in SAVE_OPTIONS else "png"
        path = output / f"sheet.{ending}"
        pages = iter_pages(self.plan, self._iter_rows(), self.style)
        for number, content in enumerate(encode_sheets(pages, ending), 1):
            write_file(format_page_path(path, number), content)
        return path.name

    def _iter_rows(self) -> Iterator[FigureRow]:
        for image in self.images:
            yield from create_figure_image(self.plan, image, self.drawing).rows


def _create_plan(config: RunConfig) -> FigurePlan:
    """The image, then for each request its layers, its parts, and the map that joins them."""
    several = len(config.requests) > 1
    columns = [
        FigureColumn(" · ".join(filter(None, (title, head))), (cell,))
        for number, request in enumerate(config.requests)
        for title in [format_method_title(request.method) if several else ""]
        for head, cell in _iter_cells(number, request, "" if several else "map")
    ]
    image = FigureColumn("image", (None,), is_image=True)
    return FigurePlan((image, *columns), ("",), (config,), has_captions=False)


def _iter_cells(number: int, request: Request, map_head: str) -> Iterator[tuple[str, FigureCell]]:
    """The head and the cell of each map; `map_head` is that of a map of one layer."""
    method, layers = request.method, request.source_layers
    if (method.per_layer and len(layers) > 1) or has_block_maps(method):
        for layer in layers:
            yield format_layer(layer), _create_cell(number, method, layer.name)
    for part in method.choices.get("part", ()):
        if part != method.caption:
            yield part, _create_cell(number, method, part)
    yield method.caption if len(layers) > 1 else map_head, _create_cell(number, method, None)


def _create_cell(number: int, method: Method, map_name: str | None) -> FigureCell:
    return FigureCell(0, number, map_name, depends_on_class(method, map_name))
