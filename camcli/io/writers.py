"""The kinds of output file that `--save` offers: one function per kind.

A kind is a function with the decorator `@writer`. It returns the end of the file's name and the
file's content. Most kinds write one file for each explained class::

    @writer(help="the class as a text file")
    def note(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
        return "note.txt", explanation.class_label.encode()

A kind with `per_image=True` writes one file for the image and takes `(result, style)`. Nothing else
has to change: the command line, its help and the result schema accept every kind in `WRITERS`.
The functions import NumPy and Pillow only when they run, so that `--help` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from camcli.core.errors import UsageError, format_suggestion
from camcli.core.types import ClassExplanation, Result
from camcli.io.files import (
    format_explanation_slug,
    list_distinct_names,
    shorten_stem,
    write_file,
)
from camcli.io.jsonl import to_json_line
from camcli.io.results import create_mask, explanation_to_json
from camcli.io.value_ranges import ValueRange

# The end of the file name, such as "overlay.jpg", and the content.
EncodedFile = tuple[str, bytes]
BlendName = Literal["value", "constant", "none"]
CaptionPlace = Literal["below", "on", "none"]
DEFAULT_ALPHA = 0.7
Encoder = Callable[..., EncodedFile]


@dataclass(frozen=True, slots=True)
class DrawingStyle:
    """The style of pictures; `input_size` (H, W) is the model's input size, to place maps.

    Without `colormap` and `blend`, a map is drawn over the image with turbo, its opacity growing
    with its value; a pixel-level map is drawn alone, in grey. `clip` is the percentile of a map
    that is drawn as its maximum. `value_range` has the raw values drawn as 0 and 1; without it,
    they are each map's own minimum and maximum.
    """

    input_size: tuple[int, int]
    colormap: str | None = None
    alpha: float = DEFAULT_ALPHA
    image_format: str = "jpg"
    with_boxes: bool = True
    blend: BlendName | None = None
    contour: bool = False
    caption: CaptionPlace = "below"
    box_color: str = "white"
    clip: float = 100.0
    value_range: ValueRange | None = None
    cell_pixels: int = 260


@dataclass(frozen=True, slots=True)
class Writer:
    """One kind of output: its name in `--save`, what it holds, and the function that encodes it."""

    name: str
    help: str
    per_image: bool
    encode: Encoder


WRITERS: dict[str, Writer] = {}
SHEET = "sheet"  # the kind that is one file for the whole run, beside the kinds in WRITERS


def writer(*, help: str, per_image: bool = False) -> Callable[[Encoder], Encoder]:
    """Register a function as a kind of output, under the function's name.

    Raises ValueError when another function has the name.
    """

    def register(function: Encoder) -> Encoder:
        name = function.__name__
        if name in WRITERS:
            raise ValueError(f"the output kind {name} is registered twice")
        WRITERS[name] = Writer(name, help, per_image, function)
        return function

    return register


def find_writer(name: str) -> Writer:
    """The kind of output with that name. Raises UsageError with near matches and all names."""
    if name not in WRITERS:
        names = (*WRITERS, SHEET)
        near = format_suggestion(name, names)
        raise UsageError(f"--save {name}: no such output{near} (choose from {', '.join(names)})")
    return WRITERS[name]


def describe_writers() -> str:
    """All kinds with their help, for the help of `--save`."""
    return "; ".join(f"{name}: {kind.help}" for name, kind in WRITERS.items())


@writer(help="the map over the image")
def overlay(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The map over the image, with class, score and, if they are saved too, boxes."""
    from camcli.io.pictures import draw_result_overlay, encode_image

    picture = draw_result_overlay(result, explanation, style)
    return f"overlay.{style.image_format}", encode_image(picture, style.image_format)


@writer(help="the map alone")
def heatmap(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The map in colour, without the image; always PNG, which keeps the colours exact."""
    from camcli.io.pictures import draw_result_heatmap, encode_image

    return "heatmap.png", encode_image(draw_result_heatmap(result, explanation, style), "png")


@writer(help="the map alone as a transparent PNG, to lay over the image")
def transparent(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The map in colour with its opacity: RGBA that gives the overlay when laid over the image."""
    from camcli.io.pictures import draw_result_transparent, encode_image

    picture = draw_result_transparent(result, explanation, style)
    return "transparent.png", encode_image(picture, "png")


@writer(help="the image, dark outside the region above the threshold")
def cutout(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The image as it is where the boxes' regions are, and dark elsewhere."""
    from camcli.io.pictures import draw_result_cutout, encode_image

    picture = draw_result_cutout(result, explanation, style)
    return f"cutout.{style.image_format}", encode_image(picture, style.image_format)


@writer(help="the region above the threshold, black and white, and as RLE in the results")
def mask(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The pixels of the image that the boxes bound: 255 inside, 0 outside; always PNG."""
    from PIL import Image

    from camcli.io.pictures import encode_image

    pixels = create_mask(explanation, result.sample.view)
    return "mask.png", encode_image(Image.fromarray(pixels).convert("L"), "png")


@writer(help="the map in 8-bit grey at its own size")
def map(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The normalised map as computed: 0 is its minimum, 255 its maximum; always PNG.

    The PNG names the raw minimum and maximum in its text chunks.
    """
    from camcli.io.pictures import encode_map

    return "map.png", encode_map(explanation.fused_map)


@writer(help="the image, each layer's map and the fused map")
def grid(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The image, every layer's map and the fused map side by side."""
    from camcli.io.pictures import draw_result_grid, encode_sheet

    picture = draw_result_grid(result, explanation, style)
    return f"grid.{style.image_format}", encode_sheet(picture, style.image_format)


@writer(help="boxes as JSON")
def boxes(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
    """The boxes of one class, as one JSON object."""
    view = result.sample.view
    document = {
        "image": result.sample.source.name,
        "width": view.image_width,
        "height": view.image_height,
        "method": result.method_name,
        "threshold": result.threshold,
        **explanation_to_json(explanation),
    }
    return "boxes.json", f"{to_json_line(document)}\n".encode()


@writer(help="raw maps as .npz", per_image=True)
def array(result: Result, style: DrawingStyle) -> EncodedFile:
    """Raw maps, float32: "{class}/{layer}", the parts of TS-CAM, and "{class}/fused".

    A second map of a class, such as a contrast, is "{class}-2/…"; without classes the names are
    "{layer}" and "fused".

    Maps are neither normalised nor resized, with one exception: the fusion of several layers is
    made of their scaled maps at the input's size.
    """
    from io import BytesIO

    import numpy as np

    classes = list_distinct_names([str(shown.class_index) for shown in result.explanations])
    arrays = {
        (panel.name if shown.class_index is None else f"{name}/{panel.name}"): panel.values
        for name, shown in zip(classes, result.explanations, strict=True)
        for panel in (*shown.layer_maps, *shown.part_maps, replace(shown.fused_map, name="fused"))
    }
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return "npz", buffer.getvalue()


def write_result(
    result: Result, kinds: Sequence[str], style: DrawingStyle, output: Path, slugs: Sequence[str]
) -> Result:
    """Write the chosen kinds of file below `output`, and return the result with their names.

    `slugs` has the part of a file name for each class. Raises OutputError; UsageError for a kind
    that is not registered.
    """
    stem = shorten_stem(result.sample.source.output_stem)
    chosen = [find_writer(kind) for kind in kinds if kind != SHEET]

    def write(start: str, encoded: EncodedFile) -> str:
        ending, content = encoded
        name = f"{start}.{result.file_tag}.{ending}"
        write_file(output / name, content)
        return name

    own_slugs = list_distinct_names(
        [format_explanation_slug(shown, slugs) for shown in result.explanations]
    )
    per_class = [
        {
            w.name: write(f"{stem}.{slug}" if slug else stem, w.encode(result, shown, style))
            for w in chosen
            if not w.per_image
        }
        for slug, shown in zip(own_slugs, result.explanations, strict=True)
    ]
    shared = {w.name: write(stem, w.encode(result, style)) for w in chosen if w.per_image}
    return replace(result, output_files=tuple(files | shared for files in per_class))
