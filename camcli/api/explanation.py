"""The results of `camcli.explain`: one map of one class of one image, to draw or to measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.core.geometry import Float32Array, map_to_original
from camcli.core.types import Box, ClassExplanation, MapStatus, Result
from camcli.io.pictures import draw_explanation, draw_result_grid, encode_image, mark_region
from camcli.io.results import explanation_to_json, sample_to_json
from camcli.io.writers import DEFAULT_ALPHA, BlendName, DrawingStyle
from camcli.review.notebook_view import CardPart, create_card_html, describe_class

NOTEBOOK_PIXELS = 640  # of the longer side: a notebook keeps each picture in its file


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """One method's map of one class of one image.

    A notebook shows it as its overlay. Boxes are in pixels of the image, half-open.
    """

    result: Result
    found: ClassExplanation
    input_size: tuple[int, int]

    @property
    def image(self) -> Image.Image:
        """The upright image, RGB."""
        return self.result.sample.image

    @property
    def name(self) -> str:
        """The image's path, or "image N" for an image without a path."""
        return self.result.sample.source.name

    @property
    def method(self) -> str:
        """The method's name."""
        return self.result.method_name

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers that the method reads."""
        return self.result.layer_names

    @property
    def class_index(self) -> int | None:
        """The index of the explained class; None for a network without classes."""
        return self.found.class_index

    @property
    def class_name(self) -> str:
        """The name of the explained class."""
        return self.found.class_name

    @property
    def score(self) -> float:
        """The probability of the class, from 0 to 1; of a regression the value.

        The cosine with `target="like:..."`, and NaN for a network without classes.
        """
        return self.found.score

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that chose the class, such as ("predicted", "folder")."""
        return self.found.targets

    @property
    def is_predicted(self) -> bool:
        """Whether the network predicts the class."""
        return self.found.is_predicted

    @property
    def status(self) -> MapStatus:
        """`ok`, or the reason for a missing map: `constant`, `zero_gradient` or `non_finite`."""
        return self.found.fused_map.status

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Boxes around what the map marks."""
        return self.found.boxes

    @property
    def heatmap(self) -> Float32Array:
        """(H,W) of the image, float32 in [0,1]. All NaN unless the status is `ok`.

        Pixels that the network did not see (`fit="crop"`) are 0.
        """
        width, height = self.result.sample.view.image_size
        visible = self.found.fused_map.visible_part
        if self.status != "ok" or visible is None:
            return np.full((height, width), np.nan, np.float32)
        return map_to_original(visible, self.result.sample.view)

    @property
    def raw(self) -> Float32Array:
        """(h,w) the fused map as computed, float32, neither normalized nor resized."""
        return self.found.fused_map.values

    @property
    def layer_maps(self) -> Mapping[str, Float32Array]:
        """The raw map (h,w) of each layer, by the layer's name."""
        return {layer_map.name: layer_map.values for layer_map in self.found.layer_maps}

    def overlay(
        self,
        *,
        colormap: str | None = None,
        alpha: float = DEFAULT_ALPHA,
        boxes: bool = False,
        blend: BlendName | None = None,
    ) -> Image.Image:
        """The map over the image; without a map, the picture shows the reason.

        By default the opacity grows with the map. `blend="constant"` gives all of it the opacity
        `alpha`, and `blend="none"` leaves out the image.
        """
        style = DrawingStyle(self.input_size, colormap, alpha, with_boxes=boxes, blend=blend)
        view = self.result.sample.view
        picture = draw_explanation(self.result, self.found, self.image, view, style)
        mark_region(picture, self.result, self.found, style)
        return picture

    def grid(self, *, colormap: str | None = None, alpha: float = DEFAULT_ALPHA) -> Image.Image:
        """The image, the map of each layer, and the fused map, in one picture."""
        style = DrawingStyle(self.input_size, colormap, alpha)
        return draw_result_grid(self.result, self.found, style)

    def save(self, path: str | Path, **options: Any) -> None:
        """Save the overlay; `options` are those of `overlay`."""
        self.overlay(**options).save(path)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a line of results.jsonl."""
        return {
            **sample_to_json(self.result.sample),
            "method": self.method,
            "layers": list(self.layers),
            **explanation_to_json(self.found),
        }

    def _repr_html_(self) -> str:
        picture = self.overlay(boxes=True)
        picture.thumbnail((NOTEBOOK_PIXELS, NOTEBOOK_PIXELS))
        about = describe_class(self.found.title, self.status, self.is_predicted, len(self.boxes))
        part = CardPart(about, encode_image(picture, "jpg"))
        names = (self.name, self.method, ", ".join(self.layers))
        return create_card_html(" · ".join(filter(None, names)), [part])

    def _repr_png_(self) -> bytes:
        return encode_image(self.overlay(boxes=True), "png")

    def __repr__(self) -> str:
        where = ", ".join(f"{b.x1},{b.y1}-{b.x2},{b.y2}" for b in self.boxes)
        shown = f"{self.class_name!r} {self.score:.2f}" if self.class_name else "no class"
        return f"Explanation({self.name!r}, {self.method}, {shown}, {self.status}, boxes [{where}])"
