"""Options for the look of pictures, with their values as typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from typer import Option

from camcli.cli.console import print_notice
from camcli.cli.declarations import NO_TYPE
from camcli.io.writers import DEFAULT_ALPHA, BlendName, CaptionPlace, DrawingStyle

PICTURES = "Pictures"
CAPTIONED_KINDS = {"overlay", "grid", "compare"}
UNDRAWN_KINDS = {"array", "boxes", "map", "mask"}  # they are the same for every look
# Version 0.1.0 wrote this look into each run.json. Runs without pictures keep it: so they resume.
FIRST_LOOK = {"colormap": "jet", "alpha": 0.5}
LOOK_OPTIONS = {*FIRST_LOOK, "blend", "contour", "box_color", "clip", "cell", "caption", "scale"}

Caption = Annotated[
    CaptionPlace,
    Option(
        help="Write the class and the method below the overlay, on it, or nowhere.",
        rich_help_panel=PICTURES,
    ),
]
Scale = Annotated[
    str,
    Option(
        metavar="SPEC",
        help="Give each image its own colour scale (image), all images of a run the same one (run:"
        " camcli computes the maps twice), or fix it to raw values (LOW..HIGH).",
        rich_help_panel=PICTURES,
    ),
]


@dataclass(frozen=True, slots=True)
class MapArguments:
    """How maps look, as typed."""

    colormap: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="Colour maps with this matplotlib colormap, such as jet.",
            show_default="turbo; grey for pixel-level maps",
            rich_help_panel=PICTURES,
        ),
    ] = None
    alpha: Annotated[
        float,
        Option(
            metavar="A",
            min=0,
            max=1,
            help="Draw the map over the image with at most this opacity.",
            rich_help_panel=PICTURES,
        ),
    ] = DEFAULT_ALPHA
    blend: Annotated[
        BlendName | None,
        Option(
            help="Let the opacity grow with the value of the map, keep it constant as papers do, or"
            " draw the map alone.",
            show_default="value; none for pixel-level maps",
            rich_help_panel=PICTURES,
        ),
    ] = None
    contour: Annotated[
        bool,
        Option(
            "--contour",
            metavar=NO_TYPE,
            help="Draw the outline of the region above the threshold.",
            rich_help_panel=PICTURES,
        ),
    ] = False
    box_color: Annotated[
        str,
        Option(
            metavar="COLOR",
            help="Draw boxes in this colour: a name, or #ff8800.",
            rich_help_panel=PICTURES,
        ),
    ] = "white"
    clip: Annotated[
        float,
        Option(
            metavar="P",
            min=1,
            max=100,
            help="Draw this percentile of a map as its maximum, such as 99, so that a few high"
            " values do not hide the others.",
            rich_help_panel=PICTURES,
        ),
    ] = 100.0


@dataclass(frozen=True, slots=True)
class PictureArguments(MapArguments):
    """How pictures look, as typed."""

    image_format: Annotated[
        Literal["jpg", "png", "webp"],
        Option(help="Save overlays and grids in this format.", rich_help_panel=PICTURES),
    ] = "jpg"
    cell: Annotated[
        int,
        Option(
            metavar="N",
            min=24,
            max=2000,
            help="Draw each picture of a grid with N pixels along its longer side.",
            rich_help_panel=PICTURES,
        ),
    ] = 260


def is_drawn_kind(kind: str) -> bool:
    """Whether the look of pictures changes the files of a kind of `--save`."""
    return kind not in UNDRAWN_KINDS


def check_colors(pictures: MapArguments) -> None:
    """Refuse a colormap or a colour that does not exist. Raises UsageError."""
    from camcli.io.drawing import find_color, find_palette

    find_color(pictures.box_color)
    if pictures.colormap is not None:
        find_palette(pictures.colormap)


def warn_of_undrawable_names(class_names: Sequence[str], kinds: Sequence[str]) -> None:
    """Say once that no installed font can draw the class names, if pictures are drawn."""
    if all(name.isascii() for name in class_names) or not {*kinds} & CAPTIONED_KINDS:
        return
    from camcli.io.fonts import FONT_PACKAGE, find_undrawable_name

    name = find_undrawable_name(class_names)
    if name is not None:
        print_notice(
            f"no installed font can draw class names such as {name!r}, so pictures show numbers of"
            f" classes instead; install one, for example: apt install {FONT_PACKAGE}"
        )


def create_drawing_style(
    pictures: MapArguments, input_size: tuple[int, int], **own: Any
) -> DrawingStyle:
    """The style of pictures for a network with this input size (H, W); `own` are more fields."""
    if isinstance(pictures, PictureArguments):
        own = {"image_format": pictures.image_format, "cell_pixels": pictures.cell, **own}
    return DrawingStyle(
        input_size=input_size,
        colormap=pictures.colormap,
        alpha=pictures.alpha,
        blend=pictures.blend,
        contour=pictures.contour,
        box_color=pictures.box_color,
        clip=pictures.clip,
        **own,
    )
