"""Open the folder of a finished, or half-finished, run of `camcli explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camcli.core.errors import UsageError, to_one_line
from camcli.core.types import Failure
from camcli.io.results import RESULTS_FILE, RUN_FILE
from camcli.review.json_files import load_json_object, parse_lines
from camcli.review.result_lines import StoredResult, parse_result


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The results of a run, in the order of results.jsonl, and what is known of the run.

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
    results = tuple(item for item in parsed if isinstance(item, StoredResult))
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
