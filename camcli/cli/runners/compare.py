"""What `camcli compare` writes and says: a picture and a line an image, and a table at the end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

from camcli.cli import console
from camcli.cli.options import COMPARED, WHY, Format
from camcli.core.errors import one_line
from camcli.core.types import Failed, Source
from camcli.io import files, jsonl, results
from camcli.runs import comparison
from camcli.runs.comparison import Row


@dataclass(frozen=True, slots=True)
class Sheet:
    """The columns and rows of every picture, and what has been seen so far.

    `strict` says that a blank map counts as a failure: not so where methods were not named.
    """

    columns: Sequence[str]
    rows: Sequence[Row]
    output: Path
    slugs: Sequence[str]
    strict: bool
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    alike: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    count: Counter[str] = field(default_factory=Counter)

    def run(self, found: Sequence[Source | Failed], overwrite: bool, format_: Format) -> int:
        """Compare on every image; the exit status."""
        machine = console.for_machines(format_)
        with (
            jsonl.opened(self.output, overwrite, COMPARED) as write,
            console.progress("comparing", len(found), format_ == "quiet") as bar,
        ):
            rows = [_ticking(row, bar) for row in self.rows]
            for item in found:
                for line in self._lines(rows, item):
                    write(line)
                    self._count(line)
                    if machine:
                        console.emit(json.dumps(line))
                bar.advance()
        if not machine and format_ != "quiet" and self.seconds:
            console.table(list(self._table()))
        console.say(f"{self._said()}; written to {one_line(self.output)}/")
        return int(bool(self.count["failed"] or (self.strict and self.count["blank"])))

    def _lines(self, rows: Sequence[Row], item: Source | Failed) -> Iterator[dict[str, Any]]:
        """What is told of an image, a line a target, once its picture is written."""
        found = comparison.compare(rows, item)
        if isinstance(found, Failed):
            yield results.failure(found)
            return
        for target in range(len(found.spearman)):
            shown = found.looks[0].result.explanations[target]
            stem = files.safe_stem(found.source.stem)
            file = f"{stem}.{files.slug(shown, self.slugs)}.compare.jpg"
            files.write(self.output / file, comparison.picture(found, target, self.columns, rows))
            yield comparison.describe(found, target, self.columns, rows) | {"file": file}

    def _count(self, line: Mapping[str, Any]) -> None:
        if line["status"] == "failed":
            self.count["failed"] += 1
            console.complain(f"{line['path']}: {line['error']}")
            return
        self.count["pictures"] += 1
        for n, shown in enumerate(line["maps"]):
            label = " ".join(filter(None, (shown["row"], shown["method"])))
            self.seconds[label].append(shown["milliseconds"])
            if shown["map_status"] != "ok":
                self.count["blank"] += 1
                console.complain(f"{line['path']}: no map ({label}): {WHY[shown['map_status']]}")
            others = [v for m, v in enumerate(line["spearman"][n]) if m != n and v is not None]
            self.alike[label] += others

    def _table(self) -> Iterator[list[str]]:
        yield ["method", "ms an image", "Spearman with the others"]
        for label, times in self.seconds.items():
            alike = f"{mean(self.alike[label]):.2f}" if self.alike[label] else "-"
            yield [label, f"{median(times):.0f}", alike]

    def _said(self) -> str:
        count = self.count["pictures"]
        parts = [f"{count} picture{'s' * (count != 1)}"]
        parts += [f"{self.count['failed']} failed"] if self.count["failed"] else []
        blank = self.count["blank"]
        parts += [f"{blank} blank map{'s' * (blank != 1)}"] if blank else []
        return ", ".join(parts)


def _ticking(row: Row, bar: console.Bar) -> Row:
    return replace(row, jobs=tuple(job and replace(job, tick=bar.inner) for job in row.jobs))
