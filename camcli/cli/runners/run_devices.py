"""Run `camcli explain --devices`: a process for each device, one progress bar, one run."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer import Context

from camcli.cli.command_line import format_options
from camcli.cli.console import (
    is_jsonl_output,
    print_data,
    print_error,
    print_notice,
    show_progress,
)
from camcli.cli.export_lines import export_finished_run
from camcli.cli.interrupts import StopFlag, handle_interrupts
from camcli.cli.loading import print_left_out
from camcli.cli.merge_texts import print_merged_run
from camcli.cli.options import choose_worker_count
from camcli.cli.output_folder import open_output_folder
from camcli.cli.page_output import print_report
from camcli.cli.problem_lines import ProblemLines
from camcli.cli.run_texts import print_problems
from camcli.cli.shard_arguments import Sharing
from camcli.cli.shard_processes import (
    ShardProcess,
    ShardProcesses,
    create_shard_command,
    create_shard_variables,
)
from camcli.core.command_text import format_command
from camcli.core.errors import to_one_line
from camcli.core.shards import SHARDS_FOLDER, Shard
from camcli.io.results import RESULTS_FILE
from camcli.io.run_folders import EXPLAIN_FOLDER
from camcli.runs.counts import ResultLine
from camcli.runs.merge_shards import MergedRun, merge_shards
from camcli.runs.run_document import load_manifest

CHECK_SECONDS = 0.2  # between two looks at the processes
# Options that the processes do not get as they are: the parent has them, or they differ.
OWN_OPTIONS = frozenset(
    ("inputs", "output", "shard", "devices", "device", "workers", "max_failures")
) | frozenset(("report", "box_format", "show", "format_", "save"))


@dataclass(frozen=True, slots=True)
class DeviceTask:
    """What the processes share: the folder, the number of images, and the list on stdin."""

    context: Context
    sharing: Sharing
    output: Path
    image_count: int
    listed: Sequence[str]

    @property
    def options(self) -> dict[str, Any]:
        """The options of the command, by name."""
        return self.context.params


def run_devices(
    context: Context,
    sharing: Sharing,
    chosen: Path | None,
    image_count: int,
    listed: Sequence[str],
) -> int:
    """Explain all images in several processes, and join their results. Returns the exit status."""
    with open_output_folder(chosen, EXPLAIN_FOLDER) as output:
        task = DeviceTask(context, sharing, output, image_count, listed)
        with handle_interrupts() as stop, ShardProcesses() as processes:
            _start_processes(task, processes)
            failed = _watch(task, processes, stop)
            if failed and not stop.is_set:
                _print_failed_process(failed)
        if stop.is_set:
            print_error(f"interrupted; to continue: {_format_resume_command(task)}")
            return stop.exit_status
        if failed:
            print_error(f"failed; to continue: {_format_resume_command(task)}")
            return 2 if failed.process.returncode == 2 else 1
        return _finish(task)


def _start_processes(task: DeviceTask, processes: ShardProcesses) -> None:
    devices, params = task.sharing.devices, task.options
    save = f"{params['save']},map" if params["report"] else params["save"]
    threads = max(1, choose_worker_count() // len(devices))
    listed = "".join(f"{name}\0" for name in task.listed).encode(errors="surrogateescape")
    for index, device in enumerate(devices):
        shard = Shard(index, len(devices))
        options = [
            *format_options(task.context, OWN_OPTIONS),
            *(f"--save={save}", f"--output={task.output}", f"--shard={shard}"),
            *("--format=quiet", "--max-failures=100%"),
        ]
        workers = params["workers"] or threads
        processes.start(
            create_shard_command(options, params["inputs"], device, workers),
            create_shard_variables(os.environ, device, threads),
            listed,
            task.output / SHARDS_FOLDER / shard.folder_name,
        )


def _watch(task: DeviceTask, processes: ShardProcesses, stop: StopFlag) -> ShardProcess | None:
    """Wait for all processes and show how far they are. Returns the first that did not finish.

    Then, and after Ctrl-C, the others end after their batch.
    """
    shown, failed, is_told = 0, None, False
    is_quiet = task.options["format_"] == "quiet"
    try:
        with show_progress("explaining", task.image_count, is_quiet) as bar:
            while not processes.is_finished:
                time.sleep(CHECK_SECONDS)
                done = max(shown, processes.count_images())
                bar.advance(done - shown)
                shown = done
                failed = failed or _find_failed(processes)
                if (failed or stop.is_set) and not is_told:
                    processes.interrupt()
                    is_told = True
    except KeyboardInterrupt:  # the second Ctrl-C
        processes.kill()
        raise
    return failed or _find_failed(processes)


def _find_failed(processes: ShardProcesses) -> ShardProcess | None:
    ended = (each for each in processes.running if each.process.poll() is not None)
    return next((each for each in ended if not _is_done(each)), None)


def _is_done(each: ShardProcess) -> bool:
    """Whether a process that ended did its part; images of it may have failed."""
    is_usual = each.process.returncode in (0, 1)
    return is_usual and load_manifest(each.folder).get("state") == "done"


def _print_failed_process(failed: ShardProcess) -> None:
    status = failed.process.returncode
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    print_error(f"shard {failed.folder.name} ended with {how}: {failed.read_last_line()}")


def _format_resume_command(task: DeviceTask) -> str:
    arguments = [part for part in sys.argv[1:] if part not in ("--overwrite", "--resume")]
    if task.options["output"] is None:
        arguments += ["--output", str(task.output)]
    advice = f"repeat it with --resume and --output {shlex.quote(str(task.output))}"
    return format_command([*arguments[:1], "--resume", *arguments[1:]]) or advice


def _finish(task: DeviceTask) -> int:
    """Join the shards, print what a run in one process prints. Returns the exit status."""
    params, problems = task.options, ProblemLines()
    has_lines = is_jsonl_output(params["format_"])

    def report_line(line: ResultLine) -> None:
        print_problems(line, problems)
        if has_lines:
            print_data(json.dumps(line))

    merged = merge_shards(task.output, overwrite=params["overwrite"], report_line=report_line)
    problems.print_repeats(to_one_line(task.output / RESULTS_FILE))
    _print_notes(merged)
    print_merged_run(task.output, merged)
    status = export_finished_run(task.output, params["box_format"])
    if params["report"]:
        print_report(task.output)
    incomplete = merged.counts.incomplete_count if merged.counts else 0
    return (
        status
        or task.sharing.choose_status(incomplete, task.image_count)
        or int(bool(merged.document.get("left_out")))
    )


def _print_notes(merged: MergedRun) -> None:
    for note in merged.document.get("notes", ()):
        print_notice(str(note))
    print_left_out(merged.document.get("left_out", {}))
