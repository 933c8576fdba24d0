"""Options of `camcli train` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from camcli.cli.completions import complete_models
from camcli.cli.declarations import INPUT, MODEL, NO_TYPE, OUTPUT, SPEED

TRAINING = "Training"  # a help panel

DataPath = Annotated[
    Path,
    Argument(
        metavar="DATA",
        help="Photographs: a folder with one subfolder per class, CUB_200_2011, ImageNet lists, or"
        " any photographs with --teacher.",
    ),
]
ModelOption = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Give the head to this timm network: a ViT with a CLS token for tscam, a CNN for gap.",
        show_default="a built-in network",
        rich_help_panel=MODEL,
        autocompletion=complete_models,
    ),
]
Teacher = Annotated[
    str | None,
    Option(
        metavar="MODEL",
        help="Learn from the answers of this classifier; the photographs need no labels.",
        rich_help_panel=MODEL,
        autocompletion=complete_models,
    ),
]
TeacherCheckpoint = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Load the weights of the teacher from this file.",
        rich_help_panel=MODEL,
    ),
]
ImageFolder = Annotated[
    Path | None,
    Option(
        metavar="DIR",
        help="Read the images from this folder.",
        show_default="DATA",
        rich_help_panel=INPUT,
    ),
]
BoxTable = Annotated[
    Path | None,
    Option(
        metavar="CSV",
        help="Validate with the boxes of this table; the epoch with the best GT-known wins.",
        rich_help_panel=INPUT,
    ),
]
ValidationShare = Annotated[
    float,
    Option(
        "--validation",
        metavar="SHARE",
        min=0.001,
        max=0.9,
        help="Keep this share for validation, if DATA has no validation split.",
        rich_help_panel=INPUT,
    ),
]
TrainedPart = Annotated[
    str,
    Option(
        "--train",
        metavar="PART",
        help="Train only the head, the last N blocks (last:N), or the whole network (all).",
        rich_help_panel=TRAINING,
    ),
]
Epochs = Annotated[
    int,
    Option(
        metavar="N",
        min=1,
        help="Train for N epochs; --train head ignores this option.",
        rich_help_panel=TRAINING,
    ),
]
TrainBatchSize = Annotated[
    int,
    Option(
        metavar="N",
        min=1,
        max=2**16,
        help="Process N photographs at a time.",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float,
    Option(
        metavar="LR",
        min=1e-9,
        help="Start with this learning rate; it falls to a tenth after half of the epochs.",
        rich_help_panel=TRAINING,
    ),
]
TrainPrecision = Annotated[
    Literal["fp32", "bf16"],
    Option(
        help="Run the network in this precision; bf16 is faster on hardware that has it.",
        rich_help_panel=SPEED,
    ),
]
TrainSeed = Annotated[
    int,
    Option(
        metavar="N",
        min=0,
        max=2**32 - 1,
        help="Set the seed; the same seed gives the same head.",
        rich_help_panel=TRAINING,
    ),
]
TrainResume = Annotated[
    bool,
    Option(
        "--resume",
        metavar=NO_TYPE,
        help="Continue an interrupted training in the output folder.",
        rich_help_panel=OUTPUT,
    ),
]
TrainOverwrite = Annotated[
    bool,
    Option(
        "--overwrite",
        metavar=NO_TYPE,
        help="Replace an existing training in the output folder.",
        rich_help_panel=OUTPUT,
    ),
]
TscamDecay = Annotated[
    float | None,
    Option(
        metavar="X",
        min=0,
        help="Set the weight decay.",
        show_default="5e-4; with --train head the best of four",
        rich_help_panel=TRAINING,
    ),
]
GapDecay = Annotated[
    float | None,
    Option(
        metavar="X",
        min=0,
        help="Set the weight decay.",
        show_default="the best of four",
        rich_help_panel=TRAINING,
    ),
]
TrainLabels = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Read class names from this file: one per line, or JSON {index: name}.",
        show_default="the names in DATA",
        rich_help_panel=MODEL,
    ),
]
