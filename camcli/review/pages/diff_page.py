"""The page of `camcli diff`: base, new, and where their maps differ, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.core.errors import ImageError
from camcli.review.diff.diff_runs import MapDifference, RunDifference
from camcli.review.diff.diff_statistics import format_statistics, format_verdict
from camcli.review.map_correlation import read_grey_map
from camcli.review.pages.inline_maps import create_difference_map, encode_inline_map
from camcli.review.pages.map_tiles import create_map_tile
from camcli.review.pages.page_data import PageItem, ReportPage, Tile
from camcli.review.pages.page_links import PhotoLinks
from camcli.review.result_lines import MAP_KIND, StoredExplanation

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = ("base", "new", "difference")
VALUE_NAMES = ("correlation", "rank correlation", "score change", "box IoU")


def create_diff_page(difference: RunDifference, page_folder: Path) -> ReportPage:
    """The page of a difference, the worst first, to be written into `page_folder`."""
    maps = difference.worst_first
    photos = PhotoLinks.from_paths([item.result.path for item in maps], page_folder, embed=False)
    folders = (difference.base.folder, difference.new.folder)
    names = " and ".join(folder.resolve().name for folder in folders)
    changes = [line.partition(": ")[::2] for line in difference.settings_changes]
    items = tuple(_create_item(item, folders, photos) for item in maps)
    return ReportPage(
        title=f"How two runs differ: {names}",
        about=format_verdict(difference),
        columns=COLUMNS,
        items=items,
        value_names=VALUE_NAMES,
        facet_names=("result", "method", "class"),
        notes=(*difference.problems, *photos.describe_missing(), format_statistics(difference)),
        folded_tables=(("settings that differ", [("setting", "change"), *changes]),),
    )


def _create_item(item: MapDifference, folders: tuple[Path, Path], photos: PhotoLinks) -> PageItem:
    result, measures = item.result, item.measures
    shown = item.new_explanation or item.base_explanation
    label = shown.class_label if shown else ""
    reasons = "; ".join(reason.text for reason in item.reasons)
    kinds = [reason.kind for reason in item.reasons]
    return PageItem(
        name=result.image,
        caption=reasons or "the same within the limits",
        photo=photos.link(result.path),
        thumbnail=photos.thumbnails.get(result.path, ""),
        width=result.width,
        height=result.height,
        tiles=tuple(_iter_tiles(item, folders)),
        values=(measures.pearson, measures.spearman, measures.score_change, measures.iou),
        facets=(f"differs: {kinds[0]}" if kinds else "same", item.method, label),
        details=(("method", item.method), ("class", label), ("file", result.path)),
        mark="wrong" if item.reasons else "",
    )


def _iter_tiles(item: MapDifference, folders: tuple[Path, Path]) -> Iterator[Tile]:
    sides = (
        (item.base, item.base_explanation, folders[0]),
        (item.new, item.new_explanation, folders[1]),
    )
    found: list[Image.Image] = []
    for column, (result, shown, folder) in enumerate(sides):
        if result is None or shown is None:
            continue
        grey_map = _load_map(shown, folder)
        found += [grey_map] if grey_map else []
        score = "" if shown.score is None else f" {shown.score:.2f}"
        status = "" if shown.map_status == "ok" else shown.map_status
        tile = create_map_tile(column, result, shown, grey_map)
        yield replace(tile, note=f"{shown.class_label}{score}", status=status)
    if len(found) == 2 and item.base and item.new and item.base.view == item.new.view:
        change, largest = create_difference_map(*found)
        note, view = f"up to {largest:.2f}", item.new.partial_view
        yield Tile(2, note=note, map_png=encode_inline_map(change), view=view)


def _load_map(shown: StoredExplanation, folder: Path) -> Image.Image | None:
    """The map; None where it was not saved or cannot be read, which `reasons` tells already."""
    with suppress(ImageError):
        return read_grey_map(folder / shown.files[MAP_KIND]) if MAP_KIND in shown.files else None
    return None
