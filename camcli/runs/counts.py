"""Count what happened to the images of a run, from the lines of results.jsonl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from camcli.core.types import format_class_label

ResultLine = Mapping[str, Any]
MAX_LISTED_FAILURES = 1000  # failures that run.json lists; results.jsonl has all
HIGHEST_CLASS = "; the highest is "  # what follows in a reason differs between images


@dataclass(slots=True)
class RunCounts:
    """Images that are done, done by an earlier run, or failed; and maps without an answer.

    `first_files` are the files of the first explanation that has any, by their kind.
    `incomplete_count` counts the images that failed or have a map without an answer.
    `first_frame_count` counts the files of which only the first frame or page is explained.
    """

    done_count: int = 0
    earlier_count: int = 0
    incomplete_count: int = 0
    first_frame_count: int = 0
    blank_map_counts: Counter[str] = field(default_factory=Counter)
    failure_reasons: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    last_path: str | None = None
    last_incomplete_path: str | None = None
    first_files: Mapping[str, str] = field(default_factory=dict)

    def add_earlier_line(self, line: ResultLine) -> None:
        """Count a line that an earlier run wrote."""
        is_new = self._is_new_image(line)
        self._count_incomplete(line)
        self.earlier_count += is_new
        self._count_maps(line, is_new)

    def add_line(self, line: ResultLine) -> None:
        """Count a line that this run wrote."""
        is_new = self._is_new_image(line)
        self._count_incomplete(line)
        if line["status"] == "failed":
            self.failure_reasons[find_failure_kind(line["error"])] += 1
            if len(self.failures) < MAX_LISTED_FAILURES:
                self.failures.append({"path": line["path"], "error": line["error"]})
            return
        self.done_count += is_new
        self._count_maps(line, is_new)
        self.first_files = self.first_files or line["explanations"][0]["files"]

    def _count_incomplete(self, line: ResultLine) -> None:
        """Count an image at its first line that is not complete."""
        if self.last_path != self.last_incomplete_path and not is_complete_line(line):
            self.last_incomplete_path = self.last_path
            self.incomplete_count += 1

    def _count_maps(self, line: ResultLine, is_new: bool) -> None:
        self.first_frame_count += is_new and bool(line.get("has_more_frames"))
        self.blank_map_counts.update(status for _, _, status in list_blank_maps(line))

    def _is_new_image(self, line: ResultLine) -> bool:
        """Whether this is the first line of its image; the lines of one image come in a row."""
        previous, self.last_path = self.last_path, str(line["path"])
        return self.last_path != previous

    @property
    def has_lines(self) -> bool:
        """Whether any line has been counted."""
        return self.last_path is not None

    @property
    def is_complete(self) -> bool:
        """Whether every image has every map."""
        return not (self.failure_reasons or self.blank_map_counts.total())

    def to_json(self) -> dict[str, Any]:
        """Return the `counts` of run.json."""
        return {
            "done": self.done_count,
            "done_before": self.earlier_count,
            "failed": self.failure_reasons.total(),
            "maps_without_answer": dict(self.blank_map_counts),
            "failures": self.failures,
        }


def is_complete_line(line: ResultLine) -> bool:
    """Whether a line reports no failure and no map without an answer."""
    return line["status"] != "failed" and not list_blank_maps(line)


def find_failure_kind(reason: str) -> str:
    """What a reason has in common with those of other images that no class is high enough for."""
    return reason.partition(HIGHEST_CLASS)[0]


def list_blank_maps(line: ResultLine) -> list[tuple[str, str, str]]:
    """List the class, layer and status of every map of a line that shows no answer."""
    return [
        (_format_class(found), layer, status)
        for found in line["explanations"]
        for layer, status in (found.get("layer_status", {}) or {"map": found["map_status"]}).items()
        if status != "ok"
    ]


def _format_class(found: Mapping[str, Any]) -> str:
    rivals = [rival["class_name"] for rival in found.get("against", ())]
    name = found["class_name"] or "any class"
    return format_class_label(name, rivals, is_low=found.get("direction") == "low")
