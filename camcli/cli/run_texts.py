"""Texts about a run that need no network: its problems, its counts, its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from camcli.cli.console import print_info
from camcli.cli.problem_lines import ProblemLines
from camcli.core.errors import to_one_line
from camcli.core.types import STATUS_TEXTS
from camcli.runs.counts import ResultLine, RunCounts, find_failure_kind, list_blank_maps

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


def list_incomplete_texts(counts: RunCounts) -> list[str]:
    """What the counts say of images that failed, or of which only a part is explained."""
    parts = []
    if counts.failure_reasons:
        parts.append(f"{counts.failure_reasons.total()} failed ({_format_reasons(counts)})")
    parts += [f"{n} without a map ({status})" for status, n in counts.blank_map_counts.items()]
    if counts.first_frame_count:
        parts.append(f"only the first frame or page of {counts.first_frame_count}")
    return parts


def choose_first_picture(files: Mapping[str, str]) -> str | None:
    """The file to look at first, of those of one result by their kind."""
    return next((files[kind] for kind in PICTURE_KINDS if kind in files), None)


def print_results_folder(folder: Path, picture: str | None) -> None:
    """Print where the results are, and which picture to open first."""
    how = f" (open {_quote_path(folder / picture)})" if picture else ""
    print_info(f"results in {_quote_path(folder)}{how}")


def _quote_path(path: Path) -> str:
    return to_one_line(shlex.quote(str(path)))


def _format_reasons(counts: RunCounts) -> str:
    common = counts.failure_reasons.most_common(MAX_SUMMARY_REASONS)
    other_count = len(counts.failure_reasons) - len(common)
    parts = [f"{n}: {to_one_line(reason)[:80]}" for reason, n in common]
    return "; ".join(parts + ([f"{other_count} other reasons"] if other_count else []))
