"""Open the folder of a finished, or half-finished, run of `camcli explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.core.errors import UsageError, to_one_line
from camcli.core.plurals import format_count
from camcli.core.types import Failure
from camcli.io.results import RESULTS_FILE, RUN_FILE
from camcli.review.json_files import load_json_object, parse_lines
from camcli.review.result_lines import StoredResult, parse_result

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, repr=False)
class StoredRun:
    """The results of a run, in the order of results.jsonl, and what is known of the run.

    A notebook shows it with its first pictures.

    `settings` is the content of run.json, or empty without it. `problems` says in plain lines what
    is missing or damaged. `results` and `failures` have one entry for each valid line.
    """

    folder: Path
    results: tuple[StoredResult, ...]
    failures: tuple[Failure, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[StoredResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def filter(self, keep: Callable[[StoredResult], bool]) -> StoredRun:
        """The same run with only the results that `keep` returns True for."""
        return replace(self, results=tuple(result for result in self.results if keep(result)))

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods, in order of first appearance."""
        return tuple(dict.fromkeys(result.method for result in self.results))

    def summary(self) -> str:
        """A line that says what the run holds, then a line for each problem."""
        images = {result.path for result in self.results}
        models = dict.fromkeys(result.model for result in self.results)
        parts = [
            format_count(len(images), "image"),
            format_count(len(self.results), "result"),
            *([_format_names(self.methods)] if self.methods else []),
            *([_format_names(models)] if models else []),
            *([f"{len(self.failures)} failed"] if self.failures else []),
        ]
        return "\n".join([f"{to_one_line(self.folder)}: {', '.join(parts)}", *self.problems])

    def to_dataframe(self) -> DataFrame:
        """A table of pandas: a row for each image, method and class.

        Columns have the names of the fields of results.jsonl. `x1` to `y2` and `box_score` are of
        the largest box; `boxes` has all of them. Raises UsageError if pandas is not installed.
        """
        from camcli.review.result_table import create_dataframe

        return create_dataframe(self.results)

    def __repr__(self) -> str:
        return f"StoredRun({self.summary().splitlines()[0]})"

    def _repr_html_(self) -> str:
        from camcli.review.notebook_view import create_run_html

        return create_run_html(self)


def _format_names(names: Iterable[str]) -> str:
    """The first names, as text of one line."""
    shown = [to_one_line(name)[:80] for name in names]
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")


def open_run(folder: str | Path) -> StoredRun:
    """Read a run's folder: results.jsonl, and run.json if it is there.

    Lines that are damaged are left out and counted in `problems`. Raises UsageError if the folder
    has no results.jsonl, or if it cannot be read.
    """
    folder = Path(folder)
    if not (folder / RESULTS_FILE).is_file():
        raise UsageError(
            f"{to_one_line(folder)} has no {RESULTS_FILE}; "
            "name the output folder of `camcli explain`"
        )
    parsed, line_problems = parse_lines(folder / RESULTS_FILE, parse_result)
    results = tuple(replace(r, folder=folder) for r in parsed if isinstance(r, StoredResult))
    failures = tuple(item for item in parsed if isinstance(item, Failure))
    settings, settings_problems = load_settings(folder)
    problems = (*settings_problems, *line_problems, *_describe_outside(results))
    return StoredRun(folder, results, failures, settings, problems)


def load_settings(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The content of run.json, and what is wrong with it."""
    try:
        content = load_json_object(folder / RUN_FILE)
    except FileNotFoundError:
        return {}, [f"{RUN_FILE} is missing, so the settings of the run are not known"]
    if content is None:
        return {}, [f"{RUN_FILE} cannot be read, so the settings of the run are not known"]
    state = content.get("state")
    if state != "done":
        return content, [f"the run is not complete: its state is {to_one_line(state)[:40]}"]
    return content, []


def _describe_outside(results: tuple[StoredResult, ...]) -> list[str]:
    names = [
        name
        for result in results
        for explanation in result.explanations
        for name in explanation.outside_files
    ]
    if not names:
        return []
    first = to_one_line(names[0])[:100]
    return [f"{len(names)} file names leave the run's folder and are left out, such as {first}"]
