"""Print what failed as soon as it fails, and a summary at the end of a run."""

from __future__ import annotations

import time
from contextlib import suppress

from camcli.cli.console import print_error, print_info
from camcli.core.errors import LayerError, to_one_line
from camcli.core.types import STATUS_TEXTS
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.runs.counts import ResultLine, RunCounts, list_blank_maps
from camcli.runs.explain_run import ExplainRun

TIMED_PHASES = ("reading", "computing", "writing")  # the phases that the summary names
MAX_SUMMARY_REASONS = 3  # the most frequent reasons that the summary names


def print_problems(line: ResultLine) -> None:
    """Print the failure of an image, or each of its maps that shows no answer."""
    if line["status"] == "failed":
        print_error(f"{line['path']}: {line['error']}")
        return
    for label, layer, status in list_blank_maps(line):
        map_name = f"{line['method']} of {label}, {layer}"
        print_error(f"{line['path']}: no map ({map_name}): {STATUS_TEXTS[status].message}")


def print_summary(run: ExplainRun) -> None:
    """Print what was done, where the time went, and what to try after zero gradients."""
    parts = [_format_speed(run)]
    counts = run.counts
    if counts.earlier_count:
        parts.append(f"{counts.earlier_count} done before")
    if counts.failure_reasons:
        parts.append(f"{counts.failure_reasons.total()} failed ({_format_reasons(counts)})")
    parts += [f"{n} without a map ({status})" for status, n in counts.blank_map_counts.items()]
    print_info(f"{', '.join(parts)}; written to {to_one_line(run.task.output)}/")
    if counts.blank_map_counts["zero_gradient"]:
        _print_zero_gradient_hint(run)


def _format_speed(run: ExplainRun) -> str:
    count, took = run.counts.done_count, time.monotonic() - run.start_time
    text = f"{count} image{'s' * (count != 1)} in {took:.1f} s"
    if not count:
        return text
    seconds = run.state.timer.seconds
    shares = ", ".join(
        f"{100 * seconds[phase] / took:.0f} % {phase}" for phase in TIMED_PHASES if phase in seconds
    )
    return f"{text} ({count / took:.1f} a second: {shares})"


def _format_reasons(counts: RunCounts) -> str:
    common = counts.failure_reasons.most_common(MAX_SUMMARY_REASONS)
    other_count = len(counts.failure_reasons) - len(common)
    parts = [f"{n}: {to_one_line(reason)[:80]}" for reason, n in common]
    return "; ".join(parts + ([f"{other_count} other reasons"] if other_count else []))


def _print_zero_gradient_hint(run: ExplainRun) -> None:
    with suppress(LayerError):  # a model without a suitable layer has no hint
        layer = find_model_default_layer(run.task.config.model).name
        print_info(
            "zero gradient: the class score does not depend on this layer's patch tokens. "
            f"Try --layers {layer}"
        )
