"""Options of the methods that all commands apply in the same way."""

from __future__ import annotations

from typing import Annotated, Literal

from typer import Option

from camcli.cli.declarations import METHOD

BlockSpecs = Annotated[
    list[str] | None,
    Option(
        "--block",
        "-b",
        metavar="N",
        help="Explain transformer block N, at the input of its attention; 0 is the first block, -1"
        " the last. Also 0,5,11, 0..11, all, and each:0..11. Repeat the option to add a row.",
        rich_help_panel=METHOD,
    ),
]
FusionName = Annotated[
    Literal["max", "mean", "product", "none"] | None,
    Option(
        "--fusion",
        help="Fuse the maps of several layers this way.",
        show_default="as in the method's paper",
        rich_help_panel=METHOD,
    ),
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set an option of the method; repeat for several.",
        rich_help_panel=METHOD,
    ),
]
Smooth = Annotated[
    str,
    Option(
        metavar="SPEC",
        help="Smooth the map: none, augment (average over flips and contrasts), noise:N (average"
        " over N noisy inputs), scales:S,S (average over input sizes and flips), or eigen (first"
        " principal component).",
        rich_help_panel=METHOD,
    ),
]
Refine = Annotated[
    str,
    Option(
        metavar="SPEC",
        help="Refine the map by its own image: none, affinity (average over positions with similar"
        " features; affinity:layer=NAME,power=N or affinity:source=attention), or guided (follow"
        " the edges of the image).",
        rich_help_panel=METHOD,
    ),
]
Seed = Annotated[
    int,
    Option(
        metavar="N",
        min=0,
        max=2**31,
        help="Set the seed of everything random.",
        rich_help_panel=METHOD,
    ),
]
