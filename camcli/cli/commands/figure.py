"""`camcli figure`: one sheet of many images, for print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli.arguments import InputArguments, MethodArguments, ModelArguments
from camcli.cli.declarations import (
    BatchSize,
    Device,
    Inputs,
    LayerSpecs,
    MethodNames,
    ModelList,
    TargetSpecs,
    Workers,
)
from camcli.cli.figure_declarations import (
    FORMAT_BY_SUFFIX,
    Columns,
    FigureArguments,
    Rows,
    choose_output,
    parse_length,
)
from camcli.cli.loading import choose_model_name, load_chosen_model, print_left_out
from camcli.cli.options import (
    check_grabcut_available,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_model_names,
    parse_model_options,
    parse_picture_bands,
)
from camcli.cli.picture_arguments import MapArguments, check_colors, create_drawing_style
from camcli.core.errors import UsageError
from camcli.core.thresholds import parse_threshold
from camcli.core.types import Failure, ImageSource
from camcli.engine.providers.provider_registry import takes_layers
from camcli.engine.targets import DEFAULT_TARGET, parse_target
from camcli.io.discovery import find_image_sources, parse_path_list
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import Method
from camcli.runs.figure_columns import (
    ALL_BLOCKS,
    BLOCKS,
    LAYERS,
    CellSpec,
    ColumnWords,
    find_part_method,
    parse_cell_specs,
)

if TYPE_CHECKING:
    from camcli.models.model import Model


def figure(
    inputs: Inputs,
    *,
    columns: Columns = None,
    rows: Rows = None,
    model: ModelArguments,
    models: ModelList = None,
    method: MethodNames = None,
    layers: LayerSpecs = None,
    target: TargetSpecs = None,
    method_arguments: MethodArguments,
    image: InputArguments,
    sheet: FigureArguments,
    pictures: MapArguments,
    batch_size: BatchSize = None,
    device: Device = "auto",
    workers: Workers = None,
) -> int:
    """Draw one sheet of many images: layers, methods, classes or models side by side.

    A row is an image. --transpose makes it a column.
    """
    methods = parse_methods(method) if method else []
    names = parse_model_names(model.model, models, model.checkpoint)
    targets = target or [DEFAULT_TARGET]
    parse_target(targets)  # a wrong one is told before the network is loaded
    words = ColumnWords(methods, [name for name in names if models and name], targets)
    cells = _parse_cells(columns, rows, words)
    options = parse_method_options(cells.list_methods(methods), method_arguments, layers, image.fit)
    if options.fusion == "none" or len(options.layer_specs) > 1:
        raise UsageError("several rows of layers do not work here; write layers in --columns")
    model_options = parse_model_options(model, image, device)
    picture_bands = parse_picture_bands(image.rgb)
    threshold = parse_threshold(sheet.threshold)
    check_grabcut_available(sheet.boxes)
    width = parse_length("--width", sheet.width, sheet.dpi)
    height = parse_length("--height", sheet.height, sheet.dpi)
    suited = cells.select_methods(options.methods)
    layer_specs = [*options.layer_specs, *cells.list_layer_specs()]
    chosen_names = {
        name: choose_model_name(name or model.model, model_options, suited, layer_specs)
        for name in cells.list_models()
    }
    output = choose_output(sheet.output, sheet.image_format, sheet.overwrite)
    listed = parse_path_list(sys.stdin.read()) if "-" in inputs else []
    sources = _exclude_file(find_image_sources(inputs, listed, skip_folder=output), output)

    check_colors(pictures)

    from camcli.cli.runners.run_figure import FigureTask, run_figure
    from camcli.io.bar_scales import create_bar_scale
    from camcli.io.sheet_layout import SheetStyle
    from camcli.runs.figure_pages import has_color_bar
    from camcli.runs.figure_pictures import FigureDrawing
    from camcli.runs.figure_plan import FigureSetup, create_figure_plan
    from camcli.runs.run_config import RunConfig
    from camcli.runs.similarity import bind_target

    def create_config(network: Model, specs: Sequence[str]) -> RunConfig:
        network, bound = bind_target(network, specs, image.fit)
        return RunConfig(
            model=network,
            requests=(),
            target=bound,
            fit=image.fit,
            picture_bands=picture_bands,
            max_pixels=image.max_pixels,
            batch_size=choose_batch_size(batch_size, network.device.type, image.fit),
            workers=workers or choose_worker_count(),
            threshold=threshold,
            box_selection="largest" if sheet.boxes == "none" else sheet.boxes,
            smoothing=options.smoothing,
        )

    networks = {
        name: load_chosen_model(chosen, model_options) for name, chosen in chosen_names.items()
    }
    plan_options = replace(options.create_plan_options(), layer_spec=options.layer_specs[0])
    has_layer_methods = any(map(takes_layers, options.methods))
    setup = FigureSetup(
        networks, create_config, plan_options, methods, targets, has_layer_methods=has_layer_methods
    )
    plan = create_figure_plan(cells.rows, cells.columns, setup).name_columns(
        _parse_titles(sheet.titles)
    )
    print_left_out(plan.left_out)
    styles = [
        create_drawing_style(pictures, run.model.input_size, with_boxes=sheet.boxes != "none")
        for run in plan.runs
    ]
    task = FigureTask(
        plan=plan,
        sources=sources,
        style=SheetStyle(
            width=width,
            max_height=height,
            dpi=sheet.dpi,
            is_transposed=sheet.transpose,
            wrap=sheet.wrap,
            has_bar=has_color_bar(plan, pictures.colormap),
            scale=create_bar_scale(styles[0]),
        ),
        output=output,
        image_format=FORMAT_BY_SUFFIX[output.suffix.lower()],
        drawing=FigureDrawing(0, styles, has_names=sheet.names),
    )
    return run_figure(task)


@dataclass(frozen=True, slots=True)
class _Cells:
    """The rows and columns of a figure, as read."""

    rows: Sequence[CellSpec]
    columns: Sequence[CellSpec]

    @property
    def specs(self) -> list[CellSpec]:
        return [*self.rows, *self.columns]

    def list_methods(self, methods: Sequence[Method]) -> list[Method]:
        """Every method of the figure, once; `methods` are those of `--method`."""
        named = [spec.method for spec in self.specs if spec.method]
        parts = [find_part_method(methods) for spec in self.specs if spec.part]
        return list({method.name: method for method in (*methods, *named, *parts)}.values())

    def list_layer_specs(self) -> list[str]:
        """The layers that columns and rows name, as `--layers` takes them."""
        specs = [spec.layers for spec in self.specs if spec.layers not in (None, LAYERS)]
        return [ALL_BLOCKS if spec == BLOCKS else spec or "" for spec in specs]

    def select_methods(self, methods: Sequence[Method]) -> list[Method]:
        """The methods that the built-in network must suit: with stages, those of CNNs."""
        has_stages = any(spec.startswith("stage") for spec in self.list_layer_specs())
        return [m for m in methods if not has_stages or "CNN" in m.works_on]

    def list_models(self) -> list[str | None]:
        """Every model of the figure, once; None is the one of `--model`, or the built-in one."""
        joined = [row.join(column) for row in self.rows for column in self.columns]
        return list(dict.fromkeys(spec.model for spec in joined if not spec.image))


def _parse_cells(
    columns: Sequence[str] | None, rows: Sequence[str] | None, words: ColumnWords
) -> _Cells:
    """Read `--columns` and `--rows`. Raises UsageError, also for a list that no column uses."""
    cells = _Cells(
        rows=parse_cell_specs("--rows", rows, words) if rows else [CellSpec("")],
        columns=parse_cell_specs("--columns", columns or [_choose_columns(words)], words),
    )
    if any(row.image for row in cells.rows):
        raise UsageError("--rows: image is a column")
    used_models = {spec.model for spec in cells.specs}
    used_methods = {spec.method.name for spec in cells.specs if spec.method}
    if not used_models.issuperset(words.models):
        raise UsageError("--models: write models in --columns or --rows to use them")
    if len(words.methods) > 1 and not used_methods.issuperset(m.name for m in words.methods):
        raise UsageError("several --method: write methods in --columns or --rows to use them")
    return cells


def _choose_columns(words: ColumnWords) -> str:
    """The columns when the user writes none: the image and what differs."""
    if words.models:
        return "image,models"
    return "image,methods" if len(words.methods) > 1 else "image,fused"


def _parse_titles(text: str | None) -> list[str]:
    """The words above the columns."""
    return [part.strip() for part in text.split(",")] if text is not None else []


def _exclude_file(
    sources: Sequence[ImageSource | Failure], output: Path
) -> list[ImageSource | Failure]:
    """The images without the sheet of an earlier run."""
    own = os.path.realpath(output)
    left = [source for source in sources if os.path.realpath(source.path) != own]
    if not left:
        raise UsageError("no input: name an image, a folder or a glob")
    return left
