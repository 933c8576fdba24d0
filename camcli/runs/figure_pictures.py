"""Draw the maps of one result as small pictures for a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from camcli.core.types import STATUS_TEXTS, ClassExplanation, ImageMap, Result
from camcli.io.pictures import draw_explanation, draw_map
from camcli.io.sheet_layout import fit_cell
from camcli.io.writers import DrawingStyle
from camcli.runs.figure_plan import identify_request
from camcli.runs.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class FigureDrawing:
    """How a figure is drawn: the longest side of a picture in pixels, and the style of maps.

    `has_names` puts the name of each image beside its row.
    """

    side: int
    style_by_run: Sequence[DrawingStyle]
    has_names: bool = False


@dataclass(frozen=True, slots=True)
class DrawnClass:
    """The pictures of one class by the name of their map, and why a map has no answer."""

    label: str
    score: str
    is_predicted: bool
    pictures: Mapping[str | None, Image.Image]
    reasons: Mapping[str | None, str]


@dataclass(frozen=True, slots=True)
class DrawnResult:
    """The result of one request for one image, drawn small."""

    path: str
    request: int
    thumbnail: Image.Image
    classes: tuple[DrawnClass, ...]


def draw_result(
    map_names: Sequence[tuple[int, str | None]],
    drawing: FigureDrawing,
    run: int,
    config: RunConfig,
    result: Result,
) -> DrawnResult:
    """Draw the maps of a result that the figure shows; `map_names` has their request and name."""
    identities = [identify_request(request) for request in config.requests]
    request = identities.index((result.method_name, result.layer_names))
    image = result.sample.image
    thumbnail = image.resize(fit_cell(image.size, drawing.side))
    names = [name for number, name in map_names if number == request]
    style = drawing.style_by_run[run]
    return DrawnResult(
        path=str(result.sample.source.path),
        request=request,
        thumbnail=thumbnail,
        classes=tuple(
            _draw_class(result, shown, thumbnail, names, style) for shown in result.explanations
        ),
    )


def _draw_class(
    result: Result,
    shown: ClassExplanation,
    thumbnail: Image.Image,
    names: Sequence[str | None],
    style: DrawingStyle,
) -> DrawnClass:
    view = result.sample.view.to_image_size(*thumbnail.size)
    maps: dict[str | None, ImageMap] = {m.name: m for m in (*shown.layer_maps, *shown.part_maps)}
    maps |= {None: shown.fused_map, result.map_captions["fused"]: shown.fused_map}
    return DrawnClass(
        label=shown.class_label,
        score=shown.title.removeprefix(shown.class_label).strip(),
        is_predicted=shown.is_predicted,
        pictures={
            name: draw_map(thumbnail, maps[name], view, style)
            if maps[name] is not shown.fused_map
            else draw_explanation(result, shown, thumbnail, view, style)
            for name in names
        },
        reasons={
            name: STATUS_TEXTS[maps[name].status].caption
            for name in names
            if maps[name].status != "ok"
        },
    )
