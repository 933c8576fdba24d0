"""Options of `camcli diff` alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from camcli.cli.declarations import NO_TYPE, OUTPUT
from camcli.core.errors import UsageError, to_one_line
from camcli.review.diff.diff_limits import DiffLimits, parse_allowance, parse_limit

LIMITS = "Limits"  # help panel
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
LARGEST_SCORE = 1e9  # values of a regression have any size


@dataclass(frozen=True, slots=True)
class LimitArguments:
    """How much may differ, as typed."""

    class_changes: Annotated[
        int,
        Option(
            metavar="N",
            min=0,
            help="Allow another predicted class in N images.",
            rich_help_panel=LIMITS,
        ),
    ] = 0
    min_correlation: Annotated[
        str,
        Option(
            metavar="R",
            help="Require this Pearson correlation of each map; off: maps need not be saved.",
            rich_help_panel=LIMITS,
        ),
    ] = "0.98"
    max_score_change: Annotated[
        str,
        Option(
            metavar="D",
            help="Allow each score to change by D; off: by any amount.",
            rich_help_panel=LIMITS,
        ),
    ] = "0.05"
    min_iou: Annotated[
        str,
        Option(
            metavar="T",
            help="Require this intersection over union of the boxes.",
            rich_help_panel=LIMITS,
        ),
    ] = "off"
    allow: Annotated[
        str,
        Option(
            metavar="N|P%",
            help="Allow N images, or this share of all, to exceed the limits above; class changes"
            " have a limit of their own.",
            rich_help_panel=LIMITS,
        ),
    ] = "0"
    common: Annotated[
        bool,
        Option(
            "--common",
            metavar=NO_TYPE,
            help="Compare only the images and methods that both runs have.",
            rich_help_panel=LIMITS,
        ),
    ] = False

    def parse(self) -> DiffLimits:
        """Read the limits. Raises UsageError."""
        return DiffLimits(
            class_changes=self.class_changes,
            min_correlation=parse_limit("--min-correlation", self.min_correlation, -1, 1),
            max_score_change=parse_limit(
                "--max-score-change", self.max_score_change, 0, LARGEST_SCORE
            ),
            min_iou=parse_limit("--min-iou", self.min_iou, 0, 1),
            allowance=parse_allowance(self.allow),
        )


@dataclass(frozen=True, slots=True)
class DiffOutputArguments:
    """What to print and which files to write, as typed."""

    output: Annotated[
        Path | None,
        Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write diff.jsonl into this folder.",
            show_default="no file",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    junit: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Write a JUnit report with a test case for each image.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    report: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Write an HTML page with base, new and difference side by side, the worst first.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    summary: Annotated[
        bool,
        Option(
            "--summary",
            metavar=NO_TYPE,
            help=f"Append Markdown to the file that {SUMMARY_VARIABLE} names, as on GitHub.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    summary_file: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Append the same Markdown to this file.",
            rich_help_panel=OUTPUT,
        ),
    ] = None
    overwrite: Annotated[
        bool,
        Option(
            "--overwrite",
            metavar=NO_TYPE,
            help="Replace files of an earlier comparison.",
            rich_help_panel=OUTPUT,
        ),
    ] = False
    format_: Annotated[
        Literal["table", "jsonl", "quiet"],
        Option(
            "--format",
            help="Print a table of what differs, a JSON line for each map, or nothing.",
            rich_help_panel=OUTPUT,
        ),
    ] = "table"
    limit: Annotated[
        int,
        Option(
            metavar="N",
            min=1,
            help="Show the N worst rows in the table.",
            rich_help_panel=OUTPUT,
        ),
    ] = 20

    def list_summary_files(self) -> list[Path]:
        """The files to append a summary to. Raises UsageError outside of GitHub Actions."""
        found = [self.summary_file] if self.summary_file else []
        if self.summary:
            name = os.environ.get(SUMMARY_VARIABLE)
            if not name:
                advice = "outside of GitHub Actions, write --summary-file FILE"
                raise UsageError(f"--summary: {SUMMARY_VARIABLE} is not set; {advice}")
            found.append(Path(name))
        return found

    def check_files_free(self, names: tuple[Path, ...]) -> None:
        """Raise UsageError for a file that exists, unless `--overwrite` is given."""
        for path in names:
            if os.path.isdir(path) or (os.path.lexists(path) and not self.overwrite):
                raise UsageError(f"{to_one_line(path)} exists: choose another name, or --overwrite")
