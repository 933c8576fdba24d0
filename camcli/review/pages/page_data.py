"""What a report page shows: items of tiles, filters, tables and charts.

The page is the same for every kind of folder. A new kind needs one function: it fills a
`ReportPage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camcli.core.errors import to_one_line

Rows = Sequence[Sequence[str]]  # of a table; the first row is the header
Corners = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image
Url = str


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of an item, in one of the page's columns.

    `map_png` is a grey PNG in base64 that the page colours and lays over the item's photo, in the
    rectangle `view`. `picture` is a finished picture that the page shows instead. `status` says why
    there is no answer.
    """

    column: int
    note: str = ""
    map_png: str = ""
    view: Corners | None = None
    boxes: tuple[Corners, ...] = ()
    picture: Url = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class PageItem:
    """An image, and one class of it, with a tile for each column that has one.

    `values` and `facets` are in the order of the page's `value_names` and `facet_names`. `mark` is
    "right", "wrong" or empty. `thumbnail` is a WebP in base64; it takes the place of `photo`.
    """

    name: str
    caption: str = ""
    photo: Url = ""
    thumbnail: str = ""
    width: int = 0
    height: int = 0
    tiles: tuple[Tile, ...] = ()
    truth_boxes: tuple[Corners, ...] = ()
    values: tuple[float | None, ...] = ()
    facets: tuple[str, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    mark: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ReportPage:
    """Everything on a page. `notes` are warnings; `charts` are a text and an address each.

    `folded_tables` stand at the end of the page and open with a click.
    """

    title: str
    about: str
    columns: tuple[str, ...]
    items: tuple[PageItem, ...]
    value_names: tuple[str, ...] = ()
    facet_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tables: tuple[tuple[str, Rows], ...] = ()
    charts: tuple[tuple[str, Url], ...] = ()
    folded_tables: tuple[tuple[str, Rows], ...] = ()
    colormap: str = ""


def page_to_json(page: ReportPage) -> dict[str, Any]:
    """The data that the page's script reads. Control and bidi characters become escapes."""
    return {
        "about": to_one_line(page.about),
        "columns": [to_one_line(name) for name in page.columns],
        "values": list(page.value_names),
        "facets": list(page.facet_names),
        "notes": [to_one_line(note) for note in page.notes],
        "tables": [[title, _clean_rows(rows)] for title, rows in page.tables],
        "charts": [[to_one_line(text), address] for text, address in page.charts],
        "folded": [[title, _clean_rows(rows)] for title, rows in page.folded_tables],
        "items": [dict(_iter_item_fields(item)) for item in page.items],
    }


def _clean_rows(rows: Rows) -> list[list[str]]:
    return [[to_one_line(cell) for cell in row] for row in rows]


def _iter_item_fields(item: PageItem) -> Iterator[tuple[str, Any]]:
    """The fields that are not empty: a page of thousands of items stays small."""
    yield "name", to_one_line(item.name)
    if item.error is not None:
        yield "error", to_one_line(item.error)
    fields: Mapping[str, Any] = {
        "caption": to_one_line(item.caption),
        "photo": item.photo,
        "thumbnail": item.thumbnail,
        "width": item.width,
        "height": item.height,
        "tiles": [_tile_to_json(tile) for tile in item.tiles],
        "truth": item.truth_boxes,
        "values": [None if value is None else round(value, 4) for value in item.values],
        "facets": [to_one_line(facet) for facet in item.facets],
        "details": _clean_rows(item.details),
        "mark": item.mark,
    }
    yield from ((key, value) for key, value in fields.items() if value)


def _tile_to_json(tile: Tile) -> dict[str, Any]:
    fields: Mapping[str, Any] = {
        "note": to_one_line(tile.note),
        "map": tile.map_png,
        "view": tile.view,
        "boxes": tile.boxes,
        "picture": tile.picture,
        "status": tile.status,
    }
    return {"column": tile.column} | {key: value for key, value in fields.items() if value}
