"""The page of a run of `camcli compare`: its pictures, and how far the methods agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.core.types import Failure, format_title
from camcli.io.file_names import COMPARISON_FILE
from camcli.review.json_files import parse_lines
from camcli.review.pages.page_data import PageItem, ReportPage, Rows, Tile
from camcli.review.pages.page_links import link_to_file
from camcli.review.result_lines import (
    LineError,
    check_number,
    is_inside_folder,
    read_field,
    read_number,
)


@dataclass(frozen=True, slots=True)
class ComparedMap:
    """One map of a comparison: the method, its row, the class and the time in milliseconds."""

    label: str
    caption: str
    status: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class StoredComparison:
    """One line of compare.jsonl. `correlations` has None for a blank map."""

    image: str
    path: str
    picture: str
    maps: tuple[ComparedMap, ...]
    correlations: tuple[tuple[float | None, ...], ...]

    @property
    def agreement(self) -> float | None:
        """The mean rank correlation of every two maps; None without any."""
        pairs = [row[other] for n, row in enumerate(self.correlations) for other in range(n)]
        numbers = [value for value in pairs if value is not None]
        return sum(numbers) / len(numbers) if numbers else None


def create_comparison_page(folder: Path, page_folder: Path, embed: bool) -> ReportPage:
    """The page of a comparison; its pictures stay files, so `embed` changes nothing."""
    del embed
    lines, problems = parse_lines(folder / COMPARISON_FILE, parse_comparison)
    compared = [line for line in lines if isinstance(line, StoredComparison)]
    failures = [
        PageItem(line.name, error=line.reason) for line in lines if isinstance(line, Failure)
    ]
    labels = list(dict.fromkeys(own.label for line in compared for own in line.maps))
    items = [_create_item(line, folder, page_folder) for line in compared]
    return ReportPage(
        title=f"Methods side by side: {folder.resolve().name}",
        about=f"{len(compared)} pictures · {', '.join(labels)}",
        columns=("",),
        items=(*items, *failures),
        value_names=("agreement", "milliseconds"),
        facet_names=("class",),
        notes=tuple(problems),
        tables=(("Mean rank correlation of every two maps", _average(compared, labels)),),
    )


def parse_comparison(line: Any) -> StoredComparison | Failure:
    """Check one line of compare.jsonl. Raises LineError."""
    if not isinstance(line, dict):
        raise LineError("not an object")
    image, path = read_field(line, "image", str), read_field(line, "path", str)
    if line.get("status") == "failed":
        return Failure(image, path, read_field(line, "error", str))
    picture = read_field(line, "file", str)
    maps = tuple(_parse_map(item) for item in read_field(line, "maps", list))
    if not maps or not is_inside_folder(picture):
        raise LineError("maps")
    table = read_field(line, "spearman", list)
    if len(table) != len(maps):
        raise LineError("spearman")
    return StoredComparison(
        image, path, picture, maps, tuple(_parse_row(row, len(maps)) for row in table)
    )


def _parse_map(item: Any) -> ComparedMap:
    if not isinstance(item, dict):
        raise LineError("maps")
    name = item.get("class_name")
    score = None if item.get("score") is None else read_number(item, "score")
    kind = read_field(item, "score_kind", str, "probability")
    label = str(name or "")
    row = read_field(item, "row", str, "")
    return ComparedMap(
        label=" ".join(part for part in (read_field(item, "method", str), row) if part),
        caption=label if score is None else format_title(label, score, kind),
        status=read_field(item, "map_status", str),
        milliseconds=read_number(item, "milliseconds"),
    )


def _parse_row(row: Any, length: int) -> tuple[float | None, ...]:
    if not isinstance(row, list) or len(row) != length:
        raise LineError("spearman")
    return tuple(None if value is None else check_number(value, "spearman") for value in row)


def _create_item(line: StoredComparison, folder: Path, page_folder: Path) -> PageItem:
    picture = link_to_file(folder / line.picture, page_folder)
    first = line.maps[0]
    return PageItem(
        name=line.image,
        caption=first.caption,
        tiles=(Tile(0, picture=picture),),
        values=(line.agreement, sum(own.milliseconds for own in line.maps)),
        facets=(first.caption.rpartition(" ")[0] or first.caption,),
        details=tuple(
            (own.label, f"{own.caption} · {own.milliseconds:.0f} ms · map {own.status}")
            for own in line.maps
        ),
    )


def _average(compared: list[StoredComparison], labels: list[str]) -> Rows:
    """The mean correlation of every two labels, as a table of texts."""
    found: dict[tuple[str, str], list[float]] = {}
    for line in compared:
        names = [own.label for own in line.maps]
        for one, row in zip(names, line.correlations, strict=True):
            for other, value in zip(names, row, strict=True):
                if value is not None:
                    found.setdefault((one, other), []).append(value)

    def format_mean(one: str, other: str) -> str:
        values = found.get((one, other))
        return f"{sum(values) / len(values):.3f}" if values else "-"

    return [["", *labels], *([one, *(format_mean(one, o) for o in labels)] for one in labels)]
