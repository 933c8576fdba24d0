"""`camcli merge`: join the shards of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from camcli.cli.console import print_info, print_notice
from camcli.cli.declarations import NO_TYPE
from camcli.cli.merge_texts import print_merged_run
from camcli.core.errors import to_one_line
from camcli.runs.merge_shards import is_merged, merge_shards


def merge(
    output: Annotated[
        Path,
        Argument(
            metavar="DIR",
            help="The output folder that all shards share.",
            show_default=False,
        ),
    ],
    overwrite: Annotated[
        bool,
        Option("--overwrite", metavar=NO_TYPE, help="Replace an existing run in the folder."),
    ] = False,
) -> int:
    """Join the shards of a run that several processes made.

    The lines of results.jsonl come in the order of the whole run, and files move to their places.
    The exit status is 0 even if images failed: results.jsonl has their lines.

    For example: camcli merge night
    """
    if is_merged(output):
        print_info(f"{to_one_line(output)} is merged already")
        return 0
    merged = merge_shards(output, overwrite=overwrite)
    print_merged_run(output, merged)
    for note in merged.document.get("notes", ()):
        print_notice(str(note))
    return 0
