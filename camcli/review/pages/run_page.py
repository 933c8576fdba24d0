"""The page of a run of `camcli explain`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camcli.core.errors import ImageError
from camcli.core.plurals import format_count
from camcli.core.types import STATUS_TEXTS
from camcli.review.map_correlation import read_grey_map
from camcli.review.pages.inline_maps import compute_agreement
from camcli.review.pages.map_tiles import create_map_tile
from camcli.review.pages.page_data import PageItem, ReportPage, Tile
from camcli.review.pages.page_links import PhotoLinks, link_to_file
from camcli.review.result_lines import MAP_KIND, StoredExplanation, StoredResult
from camcli.review.stored_run import StoredRun

if TYPE_CHECKING:
    from PIL import Image

VALUE_NAMES = ("score", "box area", "agreement of methods")
FACET_NAMES = ("class", "status", "answer")
MARKS: Mapping[bool | None, str] = {True: "right", False: "wrong", None: ""}
PICTURE_KINDS = ("overlay", "transparent", "heatmap", "grid")  # shown where no map was saved

Pair = tuple[StoredResult, StoredExplanation]


@dataclass(slots=True)
class _PageFiles:
    """What the page takes from the disk, and what it misses there."""

    run_folder: Path
    page_folder: Path
    photos: PhotoLinks
    bad_maps: list[str] = field(default_factory=list)
    map_count: int = 0

    def load_map(self, explanation: StoredExplanation) -> Image.Image | None:
        """The map of a class, if the run saved it and it can be read."""
        name = explanation.files.get(MAP_KIND)
        if name is None:
            return None
        self.map_count += 1
        try:
            return read_grey_map(self.run_folder / name)
        except ImageError as error:
            self.bad_maps.append(f"{name}: {error}")
            return None

    def link_picture(self, explanation: StoredExplanation) -> str:
        """The address of a finished picture of the class; empty without one."""
        names = (explanation.files[kind] for kind in PICTURE_KINDS if kind in explanation.files)
        found = (self.run_folder / name for name in names)
        return next((link_to_file(p, self.page_folder) for p in found if os.path.isfile(p)), "")

    def describe_problems(self) -> Iterator[str]:
        """What is missing, in lines."""
        yield from self.photos.describe_missing()
        if self.bad_maps:
            count = format_count(len(self.bad_maps), "map")
            yield f"{count} cannot be shown, such as {self.bad_maps[0]}"
        if not self.map_count:
            yield (
                "the run saved no maps, so colours and opacity are fixed; "
                "`camcli explain --report` saves them"
            )


def create_run_page(run: StoredRun, page_folder: Path, *, embed: bool = False) -> ReportPage:
    """The page of a run, to be written into `page_folder`.

    With `embed`, small pictures of all images are inside the page. Raises UsageError if these are
    more than MAX_EMBEDDED_IMAGES.
    """
    pairs = [(result, shown) for result in run.results for shown in result.explanations]
    photos = PhotoLinks.from_paths([result.path for result in run], page_folder, embed=embed)
    files = _PageFiles(run.folder, page_folder, photos)
    columns = {name: number for number, name in enumerate(run.methods)}
    items = [_create_item(group, files, columns) for group in _group_pairs(pairs)]
    failures = [PageItem(f.name, error=f.reason, facets=("", "failed", "")) for f in run.failures]
    notes = (*run.problems, *files.describe_problems(), *_describe_run_notes(run))
    image_count = len({result.path for result in run.results})
    failed = f" · {len(failures)} failed" if failures else ""
    model = run.results[0].model if run.results else "no results"
    return ReportPage(
        title=f"What the network looked at: {run.folder.resolve().name}",
        about=f"{model} · {format_count(image_count, 'image')} · {', '.join(columns)}{failed}",
        columns=tuple(columns),
        items=(*items, *failures),
        value_names=VALUE_NAMES,
        facet_names=FACET_NAMES,
        notes=notes,
        folded_tables=(("settings", [("setting", "value"), *_flatten_settings(run.settings)]),),
        colormap=_read_colormap(run.settings),
    )


def _group_pairs(pairs: Iterable[Pair]) -> list[list[Pair]]:
    """The methods' results for one class of one image together, in order of appearance."""
    groups: dict[tuple[str, str, str], list[Pair]] = {}
    for result, shown in pairs:
        key = (result.image, result.path, shown.class_label)
        groups.setdefault(key, []).append((result, shown))
    return list(groups.values())


def _create_item(pairs: list[Pair], files: _PageFiles, columns: Mapping[str, int]) -> PageItem:
    result, shown = pairs[0]
    maps = [files.load_map(explanation) for _, explanation in pairs]
    tiles = [
        _create_tile(own, explanation, values, files, columns)
        for (own, explanation), values in zip(pairs, maps, strict=True)
    ]
    statuses = [explanation.map_status for _, explanation in pairs]
    blank = next((status for status in statuses if status != "ok"), "ok")
    agreement = compute_agreement([values for values in maps if values is not None])
    return PageItem(
        name=result.image,
        caption=shown.title or shown.class_label,
        photo=files.photos.link(result.path),
        thumbnail=files.photos.thumbnails.get(result.path, ""),
        width=result.width,
        height=result.height,
        tiles=tuple(tiles),
        values=(shown.score, _compute_box_share(result, shown), agreement),
        facets=(shown.class_label, blank.replace("_", " "), MARKS[result.is_right]),
        details=tuple(_list_details(pairs)),
        mark=MARKS[result.is_right],
    )


def _create_tile(
    result: StoredResult,
    explanation: StoredExplanation,
    grey_map: Image.Image | None,
    files: _PageFiles,
    columns: Mapping[str, int],
) -> Tile:
    status = STATUS_TEXTS.get(explanation.map_status)
    shown_map = grey_map if explanation.map_status == "ok" else None
    tile = create_map_tile(columns[result.method], result, explanation, shown_map)
    if status:
        return replace(tile, status=status.caption)
    return tile if shown_map else replace(tile, picture=files.link_picture(explanation))


def _compute_box_share(result: StoredResult, shown: StoredExplanation) -> float | None:
    """The largest box's share of the image."""
    areas = [(box.x2 - box.x1) * (box.y2 - box.y1) for box in shown.boxes]
    return max(areas) / (result.width * result.height) if areas else None


def _list_details(pairs: list[Pair]) -> Iterator[tuple[str, str]]:
    result, shown = pairs[0]
    yield "file", result.path
    yield "size", f"{result.width} x {result.height}"
    if shown.targets:
        yield "asked by", ", ".join(shown.targets)
    for own, explanation in pairs:
        parts = [", ".join(own.layers), f"boxes above {own.threshold}", own.refine]
        yield own.method, " · ".join(part for part in parts if part)
        yield f"{own.method}: files", ", ".join(explanation.files.values())


def _describe_run_notes(run: StoredRun) -> list[str]:
    notes = run.settings.get("notes")
    return [str(note) for note in notes] if isinstance(notes, list) else []


def _read_colormap(settings: Mapping[str, Any]) -> str:
    options = settings.get("settings")
    found = options.get("colormap") if isinstance(options, dict) else None
    return found if isinstance(found, str) else ""


def _flatten_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """run.json as rows: the keys of nested objects joined by points."""
    for key, value in settings.items():
        if key == "arguments" and isinstance(value, list):
            yield "command", shlex.join(["camcli", *map(str, value)])
        elif isinstance(value, dict) and prefix.count(".") < 3:
            yield from _flatten_settings(value, f"{prefix}{key}.")
        elif value not in (None, [], {}):
            yield f"{prefix}{key}", str(value)[:500]
