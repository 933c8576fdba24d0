"""Print problems as they come; of equal ones only the first, and at the end how many more."""

from __future__ import annotations

from dataclasses import dataclass, field

from camcli.cli.console import print_error
from camcli.core.errors import to_one_line

MAX_PATHS_NAMED = 3  # of the images after the first one; the file of results names all


@dataclass(slots=True)
class _Repeats:
    """The images with an equal problem after the first one, and the problems they have."""

    last_path: str
    count: int = 0
    paths: list[str] = field(default_factory=list)

    def add_path(self, path: str) -> None:
        """Count an image, unless it is the last one: its maps come one after another."""
        if path == self.last_path:
            return
        self.last_path = path
        self.count += 1
        if len(self.paths) < MAX_PATHS_NAMED:
            self.paths.append(path)


@dataclass(slots=True)
class ProblemLines:
    """The problems printed so far, and how often each came again."""

    repeats: dict[str, _Repeats] = field(default_factory=dict)

    def print_problem(self, path: str, reason: str, kind: str | None = None) -> None:
        """Print why an image failed, or count it if the reason, or its kind, was printed before."""
        known = self.repeats.get(kind or reason)
        if known is None:
            self.repeats[kind or reason] = _Repeats(path)
            print_error(f"{path}: {reason}")
        else:
            known.add_path(path)

    def print_repeats(self, results_file: str) -> None:
        """Print how many more images had each problem; call it once, at the end."""
        for reason, more in self.repeats.items():
            if more.count:
                names = ", ".join(map(to_one_line, more.paths))
                rest = "" if more.count == len(more.paths) else f", …; all are in {results_file}"
                count = f"{more.count} more image{'s' * (more.count != 1)}"
                print_error(f"{count}: {reason} ({names}{rest})")
