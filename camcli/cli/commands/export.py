"""`camcli export`: the boxes of a finished run in the format of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from camcli.cli.console import print_notice
from camcli.cli.declarations import NO_TYPE, OUTPUT
from camcli.cli.export_lines import complete_formats, print_export
from camcli.core.errors import UsageError, to_one_line
from camcli.review.exporters.export_content import ExportOptions
from camcli.review.exporters.exporter_registry import find_exporter
from camcli.review.exporters.row_selection import select_row
from camcli.review.exporters.run_export import choose_export_folder, export_row
from camcli.review.stored_run import open_run

FILE_SUFFIXES = {".json", ".xml", ".yaml", ".yml", ".txt", ".zip"}


def export(
    run: Annotated[
        Path,
        Argument(metavar="RUN", help="Read the results in this output folder of camcli explain."),
    ],
    *,
    to: Annotated[
        str,
        Option(
            "--to",
            metavar="FORMAT",
            help="Write this format: coco, yolo, voc or label-studio.",
            rich_help_panel=OUTPUT,
            autocompletion=complete_formats,
        ),
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write all files into this folder.",
            show_default="RUN/export-FORMAT",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    method: Annotated[
        str | None,
        Option(
            "--method",
            "-m",
            metavar="NAME",
            help="Take the results of this method, if the run has several.",
            show_default="the only one",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    layers: Annotated[
        str | None,
        Option(
            "--layers",
            "-l",
            metavar="NAMES",
            help="Take the results of these layers, if the method has several results of an image.",
            show_default="the only ones",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    masks: Annotated[
        Literal["rle", "polygons"] | None,
        Option(
            help="Add the masks of --save mask to COCO: as run lengths, or as outlines without"
            " holes.",
            show_default="no masks",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    categories: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Take the ids of your own COCO annotations: classes by name, images by file_name.",
            show_default="class index + 1",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    conf: Annotated[
        bool,
        Option(
            "--conf",
            metavar=NO_TYPE,
            help="Add the score to the lines of YOLO; ultralytics cannot train on such files.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        Option(
            "--overwrite",
            metavar=NO_TYPE,
            help="Replace an earlier export in the output folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> int:
    """Hand the boxes of a run on to COCO, YOLO, VOC or Label Studio.

    For example: camcli export camcli-out --to coco
    """
    exporter = find_exporter(to)
    options = ExportOptions(masks, categories, conf)
    exporter.check_options(options)
    if output and output.suffix.lower() in FILE_SUFFIXES:
        shown = to_one_line(output)
        raise UsageError(f"--output {shown}: name a folder, because camcli writes several files")
    stored = open_run(run)
    row = select_row(stored, method, layers)
    for problem in stored.problems:
        print_notice(problem)
    folder = output or choose_export_folder(run, exporter)
    return print_export(export_row(stored, row, exporter, options, folder, overwrite=overwrite))
