"""What became of a run's images: told as it comes, summed up at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camcli.cli import console, options
from camcli.core.errors import LayerError, one_line
from camcli.runs.manifest import FAILURES

STAGES = ("reading", "computing", "writing")  # what a run waits for
REASONS = 3  # that a summary names


@dataclass(slots=True)
class Tally:
    """What became of a run's images, for the summary, run.json and the exit status."""

    began: float = field(default_factory=time.monotonic)
    done: int = 0
    earlier: int = 0
    blank: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    last: str | None = None

    def recall(self, line: Mapping[str, Any]) -> None:
        """Take in a line that an earlier run has written."""
        self.earlier += self._is_new(line)
        for _, _, status in _blank(line):
            self.blank[status] += 1

    def count(self, line: Mapping[str, Any]) -> bool:
        """Take in one line of results.jsonl; name at once what failed. Whether all is well."""
        name = line["path"]
        new = self._is_new(line)
        if line["status"] == "failed":
            self.reasons[line["error"]] += 1
            if len(self.failures) < FAILURES:
                self.failures.append({"path": name, "error": line["error"]})
            console.complain(f"{name}: {line['error']}")
            return False
        self.done += new
        bad = _blank(line)
        for label, layer, status in bad:
            self.blank[status] += 1
            what = f"{line['method']} of {label}, {layer}"
            console.complain(f"{name}: no map ({what}): {options.WHY[status]}")
        return not bad

    def _is_new(self, line: Mapping[str, Any]) -> bool:
        """Whether it is the first line of its image: they come one after another."""
        before, self.last = self.last, str(line["path"])
        return self.last != before

    @property
    def counts(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "done": self.done,
            "done_before": self.earlier,
            "failed": self.reasons.total(),
            "maps_without_answer": dict(self.blank),
            "failures": self.failures,
        }

    def summarise(
        self, output: Path, seconds: Mapping[str, float], default: Callable[[], str]
    ) -> None:
        """Say what was done, where the time went, and what to try where the gradient was zero."""
        took = time.monotonic() - self.began
        stages = ", ".join(
            f"{100 * seconds[stage] / took:.0f} % {stage}" for stage in STAGES if stage in seconds
        )
        rate = f" ({self.done / took:.1f} a second: {stages})" if self.done else ""
        parts = [f"{_images(self.done)} in {took:.1f} s{rate}"]
        parts += [f"{self.earlier} done before"] if self.earlier else []
        parts += [f"{self.reasons.total()} failed ({self._why()})"] if self.reasons else []
        parts += [f"{n} without a map ({status})" for status, n in self.blank.items()]
        console.say(f"{', '.join(parts)}; written to {one_line(output)}/")
        layer = None
        with suppress(LayerError):
            layer = default() if self.blank["zero_gradient"] else None
        if layer:
            console.say(
                f"zero gradient: only prefix tokens, or nothing, of that layer reaches the class "
                f"score (CLS pooling, past the last attention); it does depend on {layer}: "
                f"try --layers {layer}"
            )

    def _why(self) -> str:
        common = self.reasons.most_common(REASONS)
        others = len(self.reasons) - len(common)
        told = [f"{n}: {one_line(reason)[:80]}" for reason, n in common]
        return "; ".join(told + ([f"{others} other reasons"] if others else []))

    @property
    def any(self) -> bool:
        """Whether there is anything to tell."""
        return self.last is not None

    @property
    def status(self) -> int:
        """0 when every image has every map, else 1."""
        return int(bool(self.reasons or self.blank.total()))


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _blank(line: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The class, the layer and the status of every map that is none."""
    return [
        (found["class_name"], layer, status)
        for found in line["explanations"]
        for layer, status in (found.get("layer_status", {}) or {"map": found["map_status"]}).items()
        if status != "ok"
    ]
