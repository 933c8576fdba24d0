"""What became of a run's images: told as it comes, summed up at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camcli.cli.console import print_error, print_info
from camcli.core.errors import LayerError, to_one_line
from camcli.core.types import STATUS_TEXTS
from camcli.runs.manifest import MAX_LISTED_FAILURES

TIMED_PHASES = ("reading", "computing", "writing")  # what a run waits for
MAX_SUMMARY_REASONS = 3  # that a summary names


@dataclass(slots=True)
class RunSummary:
    """What became of a run's images, for the summary, run.json and the exit status."""

    start_time: float = field(default_factory=time.monotonic)
    done_count: int = 0
    earlier_count: int = 0
    blank_map_counts: Counter[str] = field(default_factory=Counter)
    failure_reasons: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    last_path: str | None = None

    def add_earlier_line(self, line: Mapping[str, Any]) -> None:
        """Take in a line that an earlier run has written."""
        self.earlier_count += self._is_new_image(line)
        for _, _, status in _list_blank_maps(line):
            self.blank_map_counts[status] += 1

    def add_line(self, line: Mapping[str, Any]) -> bool:
        """Take in one line of results.jsonl; name at once what failed. Whether all is well."""
        name = line["path"]
        new = self._is_new_image(line)
        if line["status"] == "failed":
            self.failure_reasons[line["error"]] += 1
            if len(self.failures) < MAX_LISTED_FAILURES:
                self.failures.append({"path": name, "error": line["error"]})
            print_error(f"{name}: {line['error']}")
            return False
        self.done_count += new
        bad = _list_blank_maps(line)
        for label, layer, status in bad:
            self.blank_map_counts[status] += 1
            what = f"{line['method']} of {label}, {layer}"
            print_error(f"{name}: no map ({what}): {STATUS_TEXTS[status].message}")
        return not bad

    def _is_new_image(self, line: Mapping[str, Any]) -> bool:
        """Whether it is the first line of its image: they come one after another."""
        before, self.last_path = self.last_path, str(line["path"])
        return self.last_path != before

    @property
    def counts(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "done": self.done_count,
            "done_before": self.earlier_count,
            "failed": self.failure_reasons.total(),
            "maps_without_answer": dict(self.blank_map_counts),
            "failures": self.failures,
        }

    def print_summary(
        self, output: Path, seconds: Mapping[str, float], find_default_name: Callable[[], str]
    ) -> None:
        """Say what was done, where the time went, and what to try where the gradient was zero."""
        took = time.monotonic() - self.start_time
        stages = ", ".join(
            f"{100 * seconds[stage] / took:.0f} % {stage}"
            for stage in TIMED_PHASES
            if stage in seconds
        )
        rate = f" ({self.done_count / took:.1f} a second: {stages})" if self.done_count else ""
        parts = [f"{_format_image_count(self.done_count)} in {took:.1f} s{rate}"]
        parts += [f"{self.earlier_count} done before"] if self.earlier_count else []
        parts += (
            [f"{self.failure_reasons.total()} failed ({self._format_reasons()})"]
            if self.failure_reasons
            else []
        )
        parts += [f"{n} without a map ({status})" for status, n in self.blank_map_counts.items()]
        print_info(f"{', '.join(parts)}; written to {to_one_line(output)}/")
        layer = None
        with suppress(LayerError):
            layer = find_default_name() if self.blank_map_counts["zero_gradient"] else None
        if layer:
            print_info(
                f"zero gradient: only prefix tokens, or nothing, of that layer reaches the class "
                f"score (CLS pooling, past the last attention); it does depend on {layer}: "
                f"try --layers {layer}"
            )

    def _format_reasons(self) -> str:
        common = self.failure_reasons.most_common(MAX_SUMMARY_REASONS)
        others = len(self.failure_reasons) - len(common)
        told = [f"{n}: {to_one_line(reason)[:80]}" for reason, n in common]
        return "; ".join(told + ([f"{others} other reasons"] if others else []))

    @property
    def has_lines(self) -> bool:
        """Whether there is anything to tell."""
        return self.last_path is not None

    @property
    def exit_status(self) -> int:
        """0 when every image has every map, else 1."""
        return int(bool(self.failure_reasons or self.blank_map_counts.total()))


def _format_image_count(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _list_blank_maps(line: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The class, the layer and the status of every map that is none."""
    return [
        (found["class_name"], layer, status)
        for found in line["explanations"]
        for layer, status in (found.get("layer_status", {}) or {"map": found["map_status"]}).items()
        if status != "ok"
    ]
