"""`camcli diff`: compare two runs, as a check in CI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from camcli.cli.console import print_data, print_error, print_info, print_table, show_progress
from camcli.cli.diff_declarations import DiffOutputArguments, LimitArguments
from camcli.core.errors import to_one_line
from camcli.review.stored_run import open_run

if TYPE_CHECKING:
    from camcli.review.diff.diff_runs import MapDifference, RunDifference

TABLE_HEAD = ("image", "method", "class", "score", "correlation", "box IoU", "why")
MAX_NAME_CHARACTERS = 40
MAX_SETTINGS_SHOWN = 10


def diff(
    base: Annotated[
        Path, Argument(metavar="BASE", help="The output folder of an earlier camcli explain.")
    ],
    new: Annotated[
        Path, Argument(metavar="NEW", help="The output folder of a new run on the same images.")
    ],
    limits: LimitArguments,
    output: DiffOutputArguments,
) -> int:
    """Compare two runs of explain: classes, scores, maps and boxes; for CI.

    The exit status is 0 if both are the same within the limits, 1 if they differ, and 2 if they
    cannot be compared. Save maps in both runs: camcli explain photos/ --save map --output new

    For example: camcli diff baseline new --allow 1% --junit camcli.xml
    """
    from camcli.review.diff.diff_files import DIFF_FILE
    from camcli.review.diff.diff_runs import compare_runs

    allowed = limits.parse()
    summaries = output.list_summary_files()
    folder_files = (output.output / DIFF_FILE,) if output.output else ()
    others = [file for file in (output.junit, output.report) if file]
    output.check_files_free((*folder_files, *others))
    base_run, new_run = open_run(base), open_run(new)
    with show_progress("comparing", len(base_run), output.format_ == "quiet") as progress:
        difference = compare_runs(
            base_run,
            new_run,
            allowed,
            is_common_only=limits.common,
            report_progress=progress.advance,
        )
    _print_difference(difference, output)
    _write_files(difference, output, summaries)
    _print_verdict(difference)
    return 0 if difference.is_same else 1


def _write_files(
    difference: RunDifference, output: DiffOutputArguments, summaries: list[Path]
) -> None:
    from camcli.review.diff.diff_files import write_diff_lines, write_junit_file
    from camcli.review.diff.diff_summary import append_summary

    if output.output:
        write_diff_lines(difference, output.output)
    if output.report:
        _write_page(difference, output.report)
    if output.junit:
        write_junit_file(difference, output.junit)
    for path in summaries:
        if not append_summary(difference, path):
            print_error(f"{path} is full, so the summary is left out; GitHub shows up to 1024 kB")


def _write_page(difference: RunDifference, page_file: Path) -> None:
    from camcli.review.pages.diff_page import create_diff_page
    from camcli.review.pages.write_page import write_page_file

    write_page_file(create_diff_page(difference, page_file.parent), page_file)
    print_info(f"open {to_one_line(page_file)}")


def _print_difference(difference: RunDifference, output: DiffOutputArguments) -> None:
    if output.format_ == "jsonl":
        from camcli.io.jsonl import to_json_line
        from camcli.review.diff.diff_files import iter_diff_lines

        for line in iter_diff_lines(difference):
            print_data(to_json_line(line))
    elif output.format_ == "table":
        _print_worst(difference, output.limit)


def _print_worst(difference: RunDifference, limit: int) -> None:
    rows = [item for item in difference.worst_first if item.reasons]
    if rows:
        print_table([TABLE_HEAD, *map(_create_row, rows[:limit])])
    if len(rows) > limit:
        print_info(f"the {limit} worst of {len(rows)} rows; for more, add --limit {len(rows)}")


def _create_row(item: MapDifference) -> list[str]:
    measures = item.measures
    shown = item.new_explanation or item.base_explanation
    return [
        _shorten(item.image),
        _shorten(item.method),
        _shorten(shown.class_label if shown else "") or "-",
        "-" if measures.score_change is None else f"{measures.score_change:+.3g}",
        *("-" if value is None else f"{value:.3f}" for value in (measures.pearson, measures.iou)),
        "; ".join(reason.text for reason in item.reasons),
    ]


def _shorten(name: str) -> str:
    """A name on one line; of a long one the end, which tells files apart."""
    line = to_one_line(name)
    return line if len(line) <= MAX_NAME_CHARACTERS else f"…{line[1 - MAX_NAME_CHARACTERS :]}"


def _print_verdict(difference: RunDifference) -> None:
    from camcli.review.diff.diff_statistics import format_statistics, format_verdict

    for problem in difference.problems:
        print_error(problem)
    if not difference.is_same:
        changes = difference.settings_changes
        for change in changes[:MAX_SETTINGS_SHOWN]:
            print_info(f"the settings differ: {change}")
        if len(changes) > MAX_SETTINGS_SHOWN:
            print_info(f"{len(changes) - MAX_SETTINGS_SHOWN} more settings differ")
    if statistics := format_statistics(difference):
        print_info(statistics)
    print_info(format_verdict(difference))
