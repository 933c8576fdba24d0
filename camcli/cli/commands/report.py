"""`camcli report`: one HTML page of a run, a comparison or an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from camcli.cli.console import print_data
from camcli.cli.declarations import NO_TYPE
from camcli.cli.page_output import PAGE_FILE, write_page
from camcli.core.errors import UsageError, to_one_line


def report(
    run: Annotated[
        Path,
        Argument(
            metavar="RUN",
            help="The output folder of explain, compare or evaluate.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the page into this file; an existing page of camcli is replaced.",
            show_default="report.html in RUN",
        ),
    ] = None,
    embed: Annotated[
        bool,
        Option(
            "--embed",
            metavar=NO_TYPE,
            help="Put small pictures of the images into the page, so that it can be sent alone:"
            " about 10 KB an image, at most 5000 images.",
        ),
    ] = False,
    open_: Annotated[
        bool, Option("--open", metavar=NO_TYPE, help="Open the page in the browser.")
    ] = False,
) -> int:
    """Write one HTML page of a run: filter, sort, and change colours and threshold.

    For example: camcli report camcli-out --open
    """
    page_file = output or run / PAGE_FILE
    print_data(to_one_line(write_page(run, page_file, embed=embed)))
    if open_:
        _open_browser(page_file)
    return 0


def _open_browser(page_file: Path) -> None:
    import webbrowser

    if not webbrowser.open(page_file.resolve().as_uri()):
        raise UsageError(f"no browser found; open {to_one_line(page_file)} yourself")
