"""Options of `camcli evaluate` alone: the data set, the maps to score, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from camcli.cli.declarations import INPUT, NO_TYPE, OUTPUT

DatasetPath = Annotated[
    Path,
    Argument(
        metavar="DATASET",
        help="A data set: CUB, wsolevaluation, VOC, COCO, a boxes.csv, or a list of images.",
    ),
]
ImageFolder = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="Read the images from this folder.",
        show_default="DATASET",
        rich_help_panel=INPUT,
    ),
]
AnnotationPath = Annotated[
    Path | None,
    Option(
        metavar="PATH",
        help="Read the boxes or masks from this file or folder.",
        show_default="DATASET",
        rich_help_panel=INPUT,
    ),
]
Split = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Use this split of the data set, such as test, train or val.",
        rich_help_panel=INPUT,
    ),
]
Limit = Annotated[
    int | None,
    Option(
        metavar="N",
        min=1,
        help="Use only the first N images of a fixed shuffle.",
        show_default="all",
        rich_help_panel=INPUT,
    ),
]
ClassList = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="Use only these classes: names or indices, separated by commas.",
        show_default="all",
        rich_help_panel=INPUT,
    ),
]
Strict = Annotated[
    bool,
    Option(
        "--strict",
        metavar=NO_TYPE,
        help="Stop at the first error in the data.",
        rich_help_panel=INPUT,
    ),
]
MapFolders = Annotated[
    list[Path] | None,
    Option(
        metavar="DIR",
        help="Score maps from this folder instead of a model: .npy files, or .npz files of"
        " --save array; --method chooses among several.",
        rich_help_panel=INPUT,
    ),
]
ResumeEvaluation = Annotated[
    bool,
    Option(
        "--resume",
        metavar=NO_TYPE,
        help="Continue an earlier evaluation in the output folder.",
        rich_help_panel=OUTPUT,
    ),
]
Resamples = Annotated[
    int,
    Option(
        metavar="N",
        min=0,
        max=10000,
        help="Compute confidence intervals from N bootstrap resamples; 0: no intervals.",
        rich_help_panel=OUTPUT,
    ),
]
Gallery = Annotated[
    Literal["examples", "all"],
    Option(
        help="Draw examples of each row, or all images too: the map, the true boxes, the box and"
        " its IoU.",
        rich_help_panel=OUTPUT,
    ),
]
ChartFormatName = Annotated[
    Literal["png", "svg", "pdf"],
    Option("--chart-format", help="Save charts in this format.", rich_help_panel=OUTPUT),
]
Floors = Annotated[
    list[str] | None,
    Option(
        metavar="METRIC=X",
        help="Exit with status 1 if the metric of a row is below X, such as gt_known=0.6.",
        rich_help_panel=OUTPUT,
    ),
]
