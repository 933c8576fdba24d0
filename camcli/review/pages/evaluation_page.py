"""The pages of `camcli evaluate`: metrics, charts, and found beside true boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camcli.core.errors import UsageError, to_one_line
from camcli.io.file_names import FAITHFULNESS_FILE, IMAGE_SCORES_FILE, REPORT_FILE
from camcli.review.json_files import load_json_object, parse_lines
from camcli.review.pages.page_data import Corners, PageItem, ReportPage, Rows, Tile
from camcli.review.pages.page_links import PhotoLinks, link_to_file
from camcli.review.result_lines import (
    LineError,
    check_number,
    check_side,
    read_field,
    read_number,
)

CHART_SUFFIXES = (".png", ".svg", ".jpg")


@dataclass(frozen=True, slots=True)
class StoredScore:
    """One line of images.jsonl: a row's boxes in one image, and how well they fit the truth."""

    image: str
    path: str
    width: int
    height: int
    row: str
    class_index: int
    iou: float
    split: str
    boxes: tuple[Corners, ...]
    truth_boxes: tuple[Corners, ...]


def create_localization_page(folder: Path, page_folder: Path, embed: bool) -> ReportPage:
    """The page of `camcli evaluate localization`."""
    report = _load_report(folder / REPORT_FILE)
    lines, problems = _load_scores(folder)
    scores = [line for line in lines if line is not None]
    rows = list(dict.fromkeys(score.row for score in scores))
    photos = PhotoLinks.from_paths([score.path for score in scores], page_folder, embed=embed)
    groups: dict[tuple[str, int], list[StoredScore]] = {}
    for score in scores:
        groups.setdefault((score.path, score.class_index), []).append(score)
    items = [_create_item(group, rows, photos) for group in groups.values()]
    return ReportPage(
        title=f"Boxes against the truth: {folder.resolve().name}",
        about=f"{to_one_line(report.get('dataset'))} · {', '.join(rows)} · true boxes are dashed",
        columns=tuple(rows),
        items=tuple(items),
        value_names=tuple(f"IoU, {row}" for row in rows),
        facet_names=tuple(f"errors, {row}" for row in rows),
        notes=(*problems, *photos.describe_missing()),
        tables=(("Metrics", _tabulate(report)),),
        folded_tables=(("what the metrics are", _describe_metrics(report)),),
        charts=tuple(_iter_charts(folder, page_folder)),
    )


def create_faithfulness_page(folder: Path, page_folder: Path, embed: bool) -> ReportPage:
    """The page of `camcli evaluate faithfulness`: its tables and charts."""
    del embed
    report = _load_report(folder / FAITHFULNESS_FILE)
    warnings = report.get("warnings")
    return ReportPage(
        title=f"Does the network use what the map shows: {folder.resolve().name}",
        about=f"{to_one_line(report.get('images', 0))} images",
        columns=(),
        items=(),
        notes=tuple(map(str, warnings)) if isinstance(warnings, list) else (),
        tables=(("Metrics", _tabulate(report)),),
        folded_tables=(("what the metrics are", _describe_metrics(report)),),
        charts=tuple(_iter_charts(folder, page_folder)),
    )


def _load_report(path: Path) -> dict[str, Any]:
    report = load_json_object(path)
    if report is None:
        raise UsageError(f"cannot read {to_one_line(path)}: it is not the JSON of an evaluation")
    return report


def _load_scores(folder: Path) -> tuple[list[StoredScore | None], list[str]]:
    if not (folder / IMAGE_SCORES_FILE).is_file():
        return [], [f"{IMAGE_SCORES_FILE} is missing, so the page has no images"]
    return parse_lines(folder / IMAGE_SCORES_FILE, parse_score)


def parse_score(line: Any) -> StoredScore | None:
    """Check a line of images.jsonl; None for a line of a baseline. Raises LineError."""
    if not isinstance(line, dict):
        raise LineError("not an object")
    if "image_size" not in line:
        return None
    size = read_field(line, "image_size", list)
    if len(size) != 2:
        raise LineError("image_size")
    layers = ",".join(map(str, read_field(line, "layers", list)))
    split = line.get("split")
    return StoredScore(
        image=read_field(line, "image", str),
        path=read_field(line, "path", str),
        width=check_side(size[0], "image_size"),
        height=check_side(size[1], "image_size"),
        row=f"{read_field(line, 'method', str)} {layers}".strip(),
        class_index=read_field(line, "class_index", int),
        iou=read_number(line, "iou"),
        split=split if isinstance(split, str) else "",
        boxes=_read_corners(line, "boxes"),
        truth_boxes=_read_corners(line, "truth_boxes"),
    )


def _read_corners(line: Mapping[str, Any], key: str) -> tuple[Corners, ...]:
    boxes = read_field(line, key, list)
    if not all(isinstance(box, list) and len(box) == 4 for box in boxes):
        raise LineError(key)
    return tuple(
        (x1, y1, x2, y2)
        for x1, y1, x2, y2 in ([check_number(edge, key) for edge in box] for box in boxes)
    )


def _create_item(group: list[StoredScore], rows: list[str], photos: PhotoLinks) -> PageItem:
    first = group[0]
    by_row = {score.row: score for score in group}
    found = [by_row.get(row) for row in rows]
    tiles = [
        Tile(n, note=f"IoU {score.iou:.2f} · {score.split}", boxes=score.boxes)
        for n, score in enumerate(found)
        if score is not None
    ]
    return PageItem(
        name=first.image,
        caption=f"class {first.class_index}",
        photo=photos.link(first.path),
        thumbnail=photos.thumbnails.get(first.path, ""),
        width=first.width,
        height=first.height,
        tiles=tuple(tiles),
        truth_boxes=first.truth_boxes,
        values=tuple(score.iou if score else None for score in found),
        facets=tuple(score.split if score else "" for score in found),
        details=(("file", first.path),),
    )


def _tabulate(report: Mapping[str, Any]) -> Rows:
    """A row for each method: the metrics with their intervals."""
    names = list(_get_dict(report, "metrics"))
    listed = report.get("rows")
    rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
    used = [name for name in names if any(name in _get_dict(row, "metrics") for row in rows)]
    return [["model", "method", "layers", *used], *(_tabulate_row(row, used) for row in rows)]


def _tabulate_row(row: Mapping[str, Any], names: list[str]) -> list[str]:
    metrics = _get_dict(row, "metrics")
    layers = row.get("layers")
    start = [str(row.get("model", "")), str(row.get("method", ""))]
    joined = ", ".join(map(str, layers)) if isinstance(layers, list) else ""
    return [*start, joined, *(_format_metric(metrics.get(name)) for name in names)]


def _format_metric(measured: Any) -> str:
    if not isinstance(measured, dict):
        return "-"
    value, low, high, threshold = (
        own if isinstance(own := measured.get(key), (int, float)) else None
        for key in ("value", "low", "high", "threshold")
    )
    if value is None:
        return "-"
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{value:.3f}{interval}" + ("" if threshold is None else f" at {threshold:.2f}")


def _describe_metrics(report: Mapping[str, Any]) -> Rows:
    rows = []
    for name, about in _get_dict(report, "metrics").items():
        text = about.get("description") if isinstance(about, dict) else about
        better = about.get("better") if isinstance(about, dict) else None
        rows.append([name, f"{text}" + (f"; {better} is better" if better else "")])
    return [["metric", "what it is"], *rows]


def _get_dict(holder: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = holder.get(key)
    return found if isinstance(found, dict) else {}


def _iter_charts(folder: Path, page_folder: Path) -> Iterator[tuple[str, str]]:
    """The pictures that lie in the folder itself."""
    for path in sorted(folder.iterdir()):
        if path.suffix in CHART_SUFFIXES and path.is_file():
            yield path.stem.replace("_", " "), link_to_file(path, page_folder)
