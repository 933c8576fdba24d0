"""The tile of one map of a run: the map over the photograph, and its boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.review.pages.inline_maps import encode_inline_map
from camcli.review.pages.page_data import Tile
from camcli.review.result_lines import StoredExplanation, StoredResult

if TYPE_CHECKING:
    from PIL import Image


def create_map_tile(
    column: int, result: StoredResult, shown: StoredExplanation, grey_map: Image.Image | None
) -> Tile:
    """The tile of one class of a result in a column, without note and status."""
    return Tile(
        column=column,
        map_png=encode_inline_map(grey_map) if grey_map else "",
        view=result.partial_view,
        boxes=tuple((box.x1, box.y1, box.x2, box.y2) for box in shown.boxes),
    )
