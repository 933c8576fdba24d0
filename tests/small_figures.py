"""Figures of small networks, and their maps drawn alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from conftest import SAMPLES

from camcli.core.types import Failure, ImageSource, Result
from camcli.engine.plan import PlanOptions, plan_requests
from camcli.engine.targets import parse_target
from camcli.io.pictures import draw_map
from camcli.io.sheet_layout import SheetCell, fit_cell
from camcli.io.writers import DrawingStyle
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import find_method
from camcli.models.model import Model
from camcli.runs.figure_columns import CellSpec, ColumnWords, parse_cell_specs
from camcli.runs.figure_pictures import FigureDrawing
from camcli.runs.figure_plan import FigureSetup, create_figure_plan
from camcli.runs.figure_run import FigureImage, iter_figure_images
from camcli.runs.figure_table import FigurePlan
from camcli.runs.pipeline import run_pipeline
from camcli.runs.run_config import RunConfig

SIDE = 60
CNN, VIT = ("test_resnet", 96, 128), ("test_vit", 96, 128)
ALONE = [CellSpec("")]


def words(*methods: str, target: str = "predicted", models: tuple[str, ...] = ()) -> ColumnWords:
    return ColumnWords(parse_methods(methods) if methods else [], models, [target])


def plan_of(
    model: Model, columns: str, given: ColumnWords | None = None, rows: str = ""
) -> FigurePlan:
    given = given or words()

    def create_config(network: Model, targets: Sequence[str]) -> RunConfig:
        rule = parse_target(targets)(network.labels)
        return RunConfig(model=network, requests=(), target=rule, batch_size=2, workers=1)

    row_specs = parse_cell_specs("--rows", [rows], given) if rows else ALONE
    specs = parse_cell_specs("--columns", [columns], given)
    setup = FigureSetup({None: model}, create_config, PlanOptions(), given.methods, given.targets)
    return create_figure_plan(row_specs, specs, setup)


def images_of(plan: FigurePlan, paths: list[Path], **look: Any) -> list[FigureImage]:
    styles = [DrawingStyle(c.model.input_size, **{"with_boxes": False, **look}) for c in plan.runs]
    drawing = FigureDrawing(SIDE, styles)
    sources = [ImageSource(path, path.name, path.stem) for path in paths]
    return list(iter_figure_images(plan, sources, drawing))


def pixels(cell: SheetCell | None) -> Any:
    assert cell is not None
    return np.asarray(cell.image)


PHOTO = SAMPLES / "rocket.jpg"


def drawn_alone(
    model: Model, method: str, layers: str | None, name: str, target: str = "predicted"
) -> Any:
    """A map drawn by the steps of `explain`, at the size of a cell."""
    requests = plan_requests(model, [find_method(method)], layers)
    config = RunConfig(model, requests, parse_target(target)(model.labels), batch_size=1)
    result = explain_photo(config)
    (shown,) = result.explanations
    small_photo = result.sample.image.resize(fit_cell(result.sample.image.size, SIDE))
    maps = {each.name: each for each in shown.layer_maps} | {"fused": shown.fused_map}
    view = result.sample.view.to_image_size(*small_photo.size)
    style = DrawingStyle(model.input_size)
    return np.asarray(draw_map(small_photo, maps[name], view, style, result))


def explain_photo(config: RunConfig) -> Result:
    source = ImageSource(PHOTO, PHOTO.name, PHOTO.stem)
    (result,) = run_pipeline(config, [source], lambda result: result)
    assert not isinstance(result, Failure)
    return result
