"""Print what failed as soon as it fails, and a summary at the end of a run."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path

from camcli.cli.clock import measure_waited_seconds
from camcli.cli.console import print_info
from camcli.cli.problem_lines import ProblemLines
from camcli.core.errors import LayerError, to_one_line
from camcli.core.types import STATUS_TEXTS
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.runs.counts import ResultLine, RunCounts, find_failure_kind, list_blank_maps
from camcli.runs.explain_run import ExplainRun

TIMED_PHASES = ("reading", "computing", "writing")  # the phases that the summary names
# The best to look at first.
PICTURE_KINDS = (
    *("compare", "sheet", "overlay", "grid", "cutout"),
    *("heatmap", "transparent", "mask", "map"),
)
MAX_SUMMARY_REASONS = 3  # the most frequent reasons that the summary names


def print_problems(line: ResultLine, problems: ProblemLines) -> None:
    """Print the failure of an image, or each of its maps that shows no answer."""
    if line["status"] == "failed":
        problems.print_problem(line["path"], line["error"], find_failure_kind(line["error"]))
        return
    for label, layer, status in list_blank_maps(line):
        method, message = line["method"], STATUS_TEXTS[status].message
        problems.print_problem(
            line["path"],
            f"no map ({method} of {label}, {layer}): {message}",
            kind=f"no map ({method}, {layer}): {message}",
        )


def print_summary(run: ExplainRun) -> None:
    """Print what was done, where the time went, and what to try after zero gradients."""
    parts = [_format_speed(run)]
    counts = run.counts
    if counts.earlier_count:
        parts.append(f"{counts.earlier_count} done before")
    if counts.failure_reasons:
        parts.append(f"{counts.failure_reasons.total()} failed ({_format_reasons(counts)})")
    parts += [f"{n} without a map ({status})" for status, n in counts.blank_map_counts.items()]
    if counts.first_frame_count:
        parts.append(f"only the first frame or page of {counts.first_frame_count}")
    print_info(", ".join(parts))
    if counts.blank_map_counts["zero_gradient"]:
        _print_zero_gradient_hint(run)


def choose_first_picture(files: Mapping[str, str]) -> str | None:
    """The file to look at first, of those of one result by their kind."""
    return next((files[kind] for kind in PICTURE_KINDS if kind in files), None)


def print_results_folder(folder: Path, picture: str | None) -> None:
    """Print where the results are, and which picture to open first."""
    how = f" (open {_quote_path(folder / picture)})" if picture else ""
    print_info(f"results in {_quote_path(folder)}{how}")


def _quote_path(path: Path) -> str:
    return to_one_line(shlex.quote(str(path)))


def _format_speed(run: ExplainRun) -> str:
    """The seconds that the user waited, those of the network, and where the run's own went."""
    count, seconds = run.counts.done_count, run.state.timer.seconds
    text = f"{count} image{'s' * (count != 1)} in {measure_waited_seconds():.1f} s"
    if not count:
        return text
    took = time.monotonic() - run.start_time
    shares = ", ".join(
        f"{100 * seconds[phase] / took:.0f} % {phase}" for phase in TIMED_PHASES if phase in seconds
    )
    speed = f"{count / took:.1f} a second after the start: {shares}"
    return f"{text} (network {seconds.get('computing', 0):.1f} s; {speed})"


def _format_reasons(counts: RunCounts) -> str:
    common = counts.failure_reasons.most_common(MAX_SUMMARY_REASONS)
    other_count = len(counts.failure_reasons) - len(common)
    parts = [f"{n}: {to_one_line(reason)[:80]}" for reason, n in common]
    return "; ".join(parts + ([f"{other_count} other reasons"] if other_count else []))


def _print_zero_gradient_hint(run: ExplainRun) -> None:
    try:
        layer = find_model_default_layer(run.task.config.model).name
        print_info(
            "zero gradient: the class score does not depend on this layer's patch tokens. "
            f"Try --layers {layer}"
        )
    except LayerError as error:
        print_info(f"zero gradient: {error}")
