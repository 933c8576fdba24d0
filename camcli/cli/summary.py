"""Print a summary at the end of a run."""

from __future__ import annotations

import time

from camcli.cli.clock import measure_waited_seconds
from camcli.cli.console import print_info
from camcli.cli.run_texts import list_incomplete_texts
from camcli.core.errors import LayerError
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.runs.explain_run import ExplainRun

TIMED_PHASES = ("reading", "computing", "writing")  # the phases that the summary names


def print_summary(run: ExplainRun) -> None:
    """Print what was done, where the time went, and what to try after zero gradients."""
    counts = run.counts
    parts = [_format_speed(run)]
    if counts.earlier_count:
        parts.append(f"{counts.earlier_count} done before")
    parts += list_incomplete_texts(counts)
    print_info(", ".join(parts))
    if counts.blank_map_counts["zero_gradient"]:
        _print_zero_gradient_hint(run)


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


def _print_zero_gradient_hint(run: ExplainRun) -> None:
    try:
        layer = find_model_default_layer(run.task.config.model).name
        print_info(
            "zero gradient: the class score does not depend on this layer's patch tokens. "
            f"Try --layers {layer}"
        )
    except LayerError as error:
        print_info(f"zero gradient: {error}")
