"""Exports of `camcli export` and of `--box-format`: what was written, and what was left out.

The exporters are imported when one is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli.console import print_error, print_info
from camcli.core.errors import CamcliError, UsageError, to_one_line
from camcli.core.plurals import format_count

if TYPE_CHECKING:
    from camcli.review.exporters.run_export import ExportSummary

JSON_FORMAT = "json"  # of `--box-format`: only the files of `--save boxes`


def complete_formats(incomplete: str) -> list[str]:
    """Names of formats."""
    from camcli.review.exporters.exporter_registry import list_exporters

    names = [exporter.name for exporter in list_exporters()]
    return [name for name in names if name.startswith(incomplete)]


def check_box_format(name: str, threshold: str | float | None) -> None:
    """Refuse a format that does not exist, and an export of a run that makes no boxes."""
    if name == JSON_FORMAT:
        return
    from camcli.review.exporters.exporter_registry import find_exporter

    find_exporter(name, "--box-format")
    if threshold == "none":
        raise UsageError("--threshold none leaves no boxes for --box-format; omit it")


def print_export(summary: ExportSummary) -> int:
    """Print what was exported. Returns the exit status: 1 if something was left out."""
    for problem in summary.problems:
        print_error(problem)
    for note in summary.notes:
        print_info(to_one_line(note))
    counts = (
        format_count(summary.box_count, "box"),
        format_count(summary.class_count, "class"),
        format_count(summary.image_count, "image"),
    )
    print_info(f"{', '.join(counts)} in {to_one_line(summary.folder)}")
    return int(bool(summary.problems))


def export_finished_run(folder: Path, box_format: str) -> int:
    """Export a run into its own folder, for `--box-format`. Returns the exit status."""
    if box_format == JSON_FORMAT:
        return 0
    from camcli.review.exporters.exporter_registry import find_exporter
    from camcli.review.exporters.run_export import export_every_row
    from camcli.review.stored_run import open_run

    try:
        summaries = list(export_every_row(open_run(folder), find_exporter(box_format)))
    except CamcliError as error:  # the run itself is complete
        print_error(error)
        return 1
    return max((print_export(summary) for summary in summaries), default=0)
