"""Draw the maps of one result as small pictures for a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from camcli.core.types import STATUS_TEXTS, ClassExplanation, ImageMap, Result
from camcli.io.map_looks import choose_look
from camcli.io.pictures import (
    draw_explanation,
    draw_explanation_cutout,
    draw_map,
    draw_map_spotlight,
    format_class,
    mark_region,
)
from camcli.io.sheet_layout import fit_cell
from camcli.io.writers import DrawingStyle
from camcli.runs.figure_columns import CUTOUT, SPOTLIGHT
from camcli.runs.figure_table import MapKey, identify_request
from camcli.runs.pipeline import add_boxes
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
class DrawnMap:
    """The picture of one map, its colormap, and why the map has no answer.

    `colormap` is None where a colour bar would say nothing.
    """

    picture: Image.Image
    colormap: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class DrawnClass:
    """The maps of one class by their name and how they are drawn."""

    label: str
    score: str
    is_predicted: bool
    maps: Mapping[MapKey, DrawnMap]


@dataclass(frozen=True, slots=True)
class DrawnResult:
    """The result of one request for one image, drawn small."""

    path: str
    request: int
    thumbnail: Image.Image
    classes: tuple[DrawnClass, ...]


def draw_result(
    map_keys: Sequence[tuple[int, MapKey]],
    drawing: FigureDrawing,
    run: int,
    config: RunConfig,
    result: Result,
) -> DrawnResult:
    """Draw the maps of a result that the figure shows; `map_keys` has their request and key."""
    identities = [identify_request(request) for request in config.requests]
    request = identities.index((result.method_name, result.layer_names))
    image = result.sample.image
    painter = _MapPainter(
        config=config,
        style=drawing.style_by_run[run],
        result=result,
        thumbnail=image.resize(fit_cell(image.size, drawing.side)),
    )
    keys = [key for number, key in map_keys if number == request]
    return DrawnResult(
        path=str(result.sample.source.path),
        request=request,
        thumbnail=painter.thumbnail,
        classes=tuple(painter.draw_class(shown, keys) for shown in result.explanations),
    )


@dataclass(frozen=True, slots=True)
class _MapPainter:
    """Draws each map of a result as if it were the fused one, so that all can have a region."""

    config: RunConfig
    style: DrawingStyle
    result: Result
    thumbnail: Image.Image

    def draw_class(self, shown: ClassExplanation, keys: Sequence[MapKey]) -> DrawnClass:
        """Draw these maps of a class."""
        maps: dict[str | None, ImageMap] = {
            m.name: m for m in (*shown.layer_maps, *shown.part_maps)
        }
        maps |= {None: shown.fused_map, self.result.map_captions["fused"]: shown.fused_map}
        label = format_class(shown) if shown.title else ""
        return DrawnClass(
            label=label,
            score=shown.title.removeprefix(shown.class_label).strip(),
            is_predicted=shown.is_predicted,
            maps={key: self._draw_map(shown, maps[key[0]], key[1]) for key in keys},
        )

    def _draw_map(
        self, shown: ClassExplanation, image_map: ImageMap, drawing: str | None
    ) -> DrawnMap:
        is_joined = self.result.has_concepts and image_map is shown.fused_map and not drawing
        look = choose_look(image_map, self.style, self.result)
        has_answer = image_map.status == "ok"
        return DrawnMap(
            picture=self._draw_picture(
                self._find_region(shown, image_map, drawing), drawing, is_joined
            ),
            colormap=None if is_joined or drawing or not has_answer else look.colormap,
            reason="" if has_answer else STATUS_TEXTS[image_map.status].caption,
        )

    def _find_region(
        self, shown: ClassExplanation, image_map: ImageMap, drawing: str | None
    ) -> ClassExplanation:
        """The explanation with this map as its fused one, and with its region if it is drawn."""
        if image_map is shown.fused_map:
            return shown
        alone = replace(shown, fused_map=image_map, layer_maps=(), boxes=(), region=None)
        if not (drawing == CUTOUT or self.style.with_boxes or self.style.contour):
            return alone
        (found,) = add_boxes(self.config, replace(self.result, explanations=(alone,))).explanations
        return found

    def _draw_picture(
        self, shown: ClassExplanation, drawing: str | None, is_joined: bool
    ) -> Image.Image:
        view = self.result.sample.view.to_image_size(*self.thumbnail.size)
        own = (self.thumbnail, shown.fused_map, view, self.style, self.result)
        if drawing == CUTOUT:
            return draw_explanation_cutout(shown, self.thumbnail, view)
        if drawing == SPOTLIGHT:
            return draw_map_spotlight(*own)
        if is_joined:
            return draw_explanation(self.result, shown, self.thumbnail, view, self.style)
        picture = draw_map(*own)
        mark_region(picture, self.result, shown, self.style)
        return picture
