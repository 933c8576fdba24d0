"""Run `camcli explain`: print each result, the progress and the summary."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli.console import print_error, print_info, print_notice, show_progress
from camcli.cli.export_lines import JSON_FORMAT, export_finished_run
from camcli.cli.interrupts import StopFlag, handle_interrupts
from camcli.cli.options import OutputFormat
from camcli.cli.problem_lines import ProblemLines
from camcli.cli.result_rows import create_result_printer
from camcli.cli.run_texts import choose_first_picture, print_problems, print_results_folder
from camcli.cli.shard_arguments import Sharing
from camcli.cli.summary import print_summary
from camcli.core.command_text import format_command
from camcli.core.errors import OutputError, to_one_line
from camcli.io.jsonl import ResultsLog
from camcli.io.results import RESULTS_FILE
from camcli.io.writers import DrawingStyle
from camcli.runs.explain_run import ExplainRun, ExplainTask

if TYPE_CHECKING:
    from camcli.cli.runners.show_overlays import OverlayShow
    from camcli.runs.explain_sheet import ExplainSheet


def run_explain(
    task: ExplainTask,
    output_format: OutputFormat,
    sheet_style: DrawingStyle | None = None,
    *,
    sharing: Sharing,
    box_format: str = JSON_FORMAT,
    show: OverlayShow | None = None,
) -> int:
    """Explain every image that has no result yet, and print. Returns the exit status.

    A run that comes to its end also writes one sheet of its first images with `sheet_style`, and
    an export of its boxes with a `box_format`. `sharing` allows some images to fail.
    `show` draws the overlays in the terminal.
    """
    sheet = _plan_sheet(task, sheet_style) if sheet_style else None
    if sheet:
        task = replace(task, write_files=sheet.collect_from(task.write_files))
    if show:
        task = replace(task, write_files=show.collect_from(task.write_files))
    run, problems = ExplainRun.from_task(task), ProblemLines()
    try:
        with handle_interrupts() as stop, run.open_folder() as log:
            _print_lines(run, log, stop, output_format, problems, show)
            if sheet and run.ending == "done":
                run.counts.first_files = {"sheet": sheet.write(task.output)}
                _print_sheet_limit(sheet, len(task.sources))
    except OutputError as error:
        if run.ending is None:  # the run did not begin
            raise
        print_error(error)
    finally:
        if run.counts.has_lines and run.ending is not None:
            problems.print_repeats(to_one_line(task.output / RESULTS_FILE))
            _print_ending(run)
    if run.ending == "done":
        return _finish(run, box_format, sharing)
    return stop.exit_status if run.ending == "interrupted" else 1


def _finish(run: ExplainRun, box_format: str, sharing: Sharing) -> int:
    """Export the boxes of a run that came to its end. Returns the exit status."""
    task, counts = run.task, run.counts
    if not task.sources:
        print_info("this shard has no images: the run has fewer batches than shards")
    status = export_finished_run(task.output, box_format) if counts.has_lines else 0
    return status or sharing.choose_status(counts.incomplete_count, len(task.sources))


def _plan_sheet(task: ExplainTask, style: DrawingStyle) -> ExplainSheet:
    from camcli.runs.explain_sheet import ExplainSheet  # matplotlib's figures are slow to import

    return ExplainSheet.from_config(task.config, task.sources, style)


def _print_sheet_limit(sheet: ExplainSheet, count: int) -> None:
    if len(sheet.images) < count:
        shown = f"the first {len(sheet.images)} of {count} images"
        print_info(f"the sheet shows {shown}; `camcli figure` shows all of them")


def _print_lines(
    run: ExplainRun,
    log: ResultsLog,
    stop: StopFlag,
    output_format: OutputFormat,
    problems: ProblemLines,
    show: OverlayShow | None,
) -> None:
    requests = run.task.config.requests
    print_result = create_result_printer(output_format, run.task.sources, requests)
    is_quiet = output_format == "quiet"
    printed_notes = 0
    with show_progress("explaining", run.remaining_count, is_quiet) as bar:
        lines = run.iter_lines(
            log, should_stop=lambda: stop.is_set, report_progress=bar.update_inner
        )
        for _, image_lines in groupby(lines, key=lambda line: line["path"]):
            bar.advance()
            for line in image_lines:
                print_problems(line, problems)
                print_result(line)
                if show:
                    with bar.pause():
                        show.draw(line)
                for note in run.state.notes[printed_notes:]:
                    print_notice(note)
                printed_notes = len(run.state.notes)


def _print_ending(run: ExplainRun) -> None:
    print_summary(run)
    print_results_folder(run.task.output, choose_first_picture(run.counts.first_files))
    if run.ending != "done":
        print_error(f"{run.ending}; to continue: {_format_resume_command(run.task.output)}")


def _format_resume_command(output: Path) -> str:
    arguments = [a for a in sys.argv[1:] if a not in ("--overwrite", "--resume")]
    if not any(a.startswith(("-o", "--output")) for a in arguments):
        arguments += ["--output", str(output)]
    advice = f"repeat the command with --resume and --output {shlex.quote(str(output))}"
    return format_command([*arguments, "--resume"]) or advice
