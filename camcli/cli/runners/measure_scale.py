"""`--scale run`: find the values that all pictures of a run share, before any is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from camcli.cli.console import show_progress
from camcli.cli.options import OutputFormat
from camcli.core.types import Failure, ImageSource
from camcli.io.value_ranges import ValueRange
from camcli.runs.measured_ranges import iter_measured_ranges
from camcli.runs.run_config import RunConfig


def measure_scale(
    config: RunConfig,
    sources: Sequence[ImageSource | Failure],
    scale: ValueRange | None,
    output_format: OutputFormat,
) -> ValueRange | None:
    """The scale as given; for `--scale run`, with the range of each method's maps in the run."""
    if scale is None or scale.fixed:
        return scale
    with show_progress("measuring", len(sources), output_format == "quiet") as bar:
        for so_far in iter_measured_ranges(config, sources):
            scale = so_far
            bar.advance()
    return scale
