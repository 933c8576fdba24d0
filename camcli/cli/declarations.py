"""Options that several commands share: their names, help texts and defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from camcli.cli.completions import complete_layers, complete_methods, complete_models
from camcli.cli.options import OutputFormat
from camcli.core.types import MAX_READABLE_PIXELS, FitMode

MODEL, METHOD, INPUT, OUTPUT, SPEED = "Model", "Method", "Input", "Output", "Speed"  # help panels
NO_TYPE = ""  # Typer would show `<bool>` after a flag
FROM_MODEL = "the model's own"

Inputs = Annotated[
    list[str],
    Argument(metavar="INPUT", help="Images: files, folders, globs, or - for a list on stdin."),
]
ModelName = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="Choose the network: a timm name, torchvision:NAME, hf-hub:ORG/NAME, a checkpoint"
        " file, program:FILE, or package.module:function.",
        show_default="a built-in network",
        rich_help_panel=MODEL,
        autocompletion=complete_models,
    ),
]
ModelList = Annotated[
    str | None,
    Option(
        metavar="LIST",
        help="Use several networks, separated by commas; each gets its own row.",
        rich_help_panel=MODEL,
        autocompletion=complete_models,
    ),
]
Checkpoint = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Load weights from this file: .safetensors, .pth, .pt or .bin.",
        rich_help_panel=MODEL,
    ),
]
LabelFile = Annotated[
    Path | None,
    Option(
        metavar="FILE",
        help="Read class names from this file: one per line, or JSON {index: name}.",
        show_default="ImageNet names for 1000 classes",
        rich_help_panel=MODEL,
    ),
]
HeadName = Annotated[
    Literal["softmax", "sigmoid", "probabilities", "regression", "embedding"] | None,
    Option(
        "--head",
        help="Take the outputs as logits of classes (softmax; sigmoid for multi-label models), as"
        " probabilities, as the values of a regression, or as an embedding without classes.",
        show_default=FROM_MODEL,
        rich_help_panel=MODEL,
    ),
]
LogitsName = Annotated[
    str | None,
    Option(
        "--logits",
        metavar="NAME",
        help="Explain this output of a network that returns several: a key, or an index from 0.",
        show_default="the one that fits the class names",
        rich_help_panel=MODEL,
    ),
]
MethodNames = Annotated[
    list[str] | None,
    Option(
        "--method",
        "-m",
        metavar="NAME",
        help="Choose a method of `camcli methods`, or package.module:function; NAME:KEY=VALUE sets"
        " its options. Repeat --method for more methods.",
        show_default="tscam or chefer on ViTs, else gradcam",
        rich_help_panel=METHOD,
        autocompletion=complete_methods,
    ),
]
LayerSpecs = Annotated[
    list[str] | None,
    Option(
        "--layers",
        "-l",
        metavar="SPEC",
        help="Explain these layers: stage4, stage1..5, last, -2 (the second last stage or block),"
        " all, or names; see `camcli layers`. Repeat the option to add a row of results; each:SPEC"
        " adds one for every layer.",
        show_default="the method's own",
        rich_help_panel=METHOD,
        autocompletion=complete_layers,
    ),
]
TargetSpecs = Annotated[
    list[str] | None,
    Option(
        "--target",
        "-t",
        metavar="SPEC",
        help="Choose the classes to explain: predicted, top:5, all, above:P, an index, a name,"
        " folder, @targets.csv, CLASS-vs-CLASS, finer:N; high or low for a regression; or"
        " like:IMAGE. Repeat for more.",
        show_default="predicted",
        rich_help_panel=METHOD,
    ),
]
FitName = Annotated[
    FitMode,
    Option(
        "--fit",
        help="Fit the image to the input size this way; tencrop merges the maps of ten crops.",
        rich_help_panel=INPUT,
    ),
]
Size = Annotated[
    str | None,
    Option(
        metavar="N|HxW",
        help="Resize the input to N or HxW pixels.",
        show_default=FROM_MODEL,
        rich_help_panel=INPUT,
    ),
]
Mean = Annotated[
    str | None,
    Option(
        metavar="M",
        help="Normalise the input with this mean, such as 0.5 or 0.485,0.456,0.406: one number, or"
        " one per channel.",
        show_default=FROM_MODEL,
        rich_help_panel=INPUT,
    ),
]
Std = Annotated[
    str | None,
    Option(
        metavar="S",
        help="Normalise the input with this standard deviation.",
        show_default=FROM_MODEL,
        rich_help_panel=INPUT,
    ),
]
MaxPixels = Annotated[
    int,
    Option(
        metavar="N",
        min=1,
        max=MAX_READABLE_PIXELS,
        help="Refuse an image of more than N pixels. Reading and drawing take up to 25 bytes of"
        " memory per pixel.",
        rich_help_panel=INPUT,
    ),
]
Interpolation = Annotated[
    Literal["nearest", "bilinear", "bicubic", "lanczos"] | None,
    Option(
        help="Resize images with this filter.",
        show_default=FROM_MODEL,
        rich_help_panel=INPUT,
    ),
]
PictureBands = Annotated[
    str | None,
    Option(
        "--rgb",
        metavar="R,G,B",
        help="Show these bands of an image with many, such as 3,2,1, or one in grey.",
        show_default="the first three, or the first",
        rich_help_panel=INPUT,
    ),
]
Overwrite = Annotated[
    bool,
    Option(
        "--overwrite",
        metavar=NO_TYPE,
        help="Replace an existing run in the output folder.",
        rich_help_panel=OUTPUT,
    ),
]
Threshold = Annotated[
    str | None,
    Option(
        metavar="T",
        help="Let boxes, masks and contours hold the values above T: a fraction of the maximum,"
        " otsu, or a percentile such as p90; none: no boxes.",
        show_default="the method's own",
        rich_help_panel=OUTPUT,
    ),
]
Boxes = Annotated[
    Literal["largest", "all", "grabcut"],
    Option(
        help="Draw a box around the largest region, all regions, or the largest after GrabCut.",
        rich_help_panel=OUTPUT,
    ),
]
DrawnBoxes = Annotated[
    Literal["none", "largest", "all", "grabcut"],
    Option(
        help="Draw a box around the largest region, all regions, or the largest after GrabCut.",
        rich_help_panel=OUTPUT,
    ),
]
FormatName = Annotated[
    OutputFormat,
    Option(
        "--format",
        help="Print results as a table or as JSON lines; auto: a table on a terminal, else jsonl.",
        rich_help_panel=OUTPUT,
    ),
]
BatchSize = Annotated[
    int | None,
    Option(
        metavar="N",
        min=1,
        help="Process N images at a time; camcli halves N when memory runs out.",
        show_default="8 on a CPU, else 32",
        rich_help_panel=SPEED,
    ),
]
Device = Annotated[
    str,
    Option(
        metavar="NAME",
        help="Compute on this device: auto, cpu, cuda, cuda:N or mps.",
        rich_help_panel=SPEED,
    ),
]
Workers = Annotated[
    int | None,
    Option(
        metavar="N",
        min=1,
        help="Read and write with N threads.",
        show_default="one per core, at most 8",
        rich_help_panel=SPEED,
    ),
]
