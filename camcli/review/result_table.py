"""The results of a run as a table of pandas: a row for each image, method and class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from camcli.core.errors import UsageError
from camcli.core.types import Box

if TYPE_CHECKING:
    from pandas import DataFrame

    from camcli.review.result_lines import StoredExplanation, StoredResult

# The names are those of results.jsonl. x1 to y2 and box_score are of the box of the largest area.
COLUMN_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("image", "path"), "object"),
    **dict.fromkeys(("width", "height"), "int64"),
    **dict.fromkeys(("model", "method", "layers", "threshold", "refine", "view"), "object"),
    "class_index": "Int64",  # it may be missing, as the box may be
    "class_name": "object",
    "score": "float64",
    "score_kind": "object",
    "predicted": "boolean",
    **dict.fromkeys(("targets", "against", "direction", "map_status"), "object"),
    **dict.fromkeys(("x1", "y1", "x2", "y2"), "Int64"),
    "box_score": "float64",
    **dict.fromkeys(("boxes", "mask", "files"), "object"),
}


def create_dataframe(results: Iterable[StoredResult]) -> DataFrame:
    """The table, also of no results. Raises UsageError without pandas."""
    try:
        import pandas
    except ImportError:
        raise UsageError("to_dataframe needs pandas; install it with: pip install pandas") from None
    rows = [_create_row(result, shown) for result in results for shown in result.explanations]
    return pandas.DataFrame(
        {
            name: pandas.Series([row[name] for row in rows], dtype=kind)
            for name, kind in COLUMN_TYPES.items()
        }
    )


def _create_row(result: StoredResult, shown: StoredExplanation) -> dict[str, Any]:
    return {
        **{name: getattr(result, name) for name in ("image", "path", "width", "height")},
        **{name: getattr(result, name) for name in ("model", "method", "threshold", "refine")},
        "layers": list(result.layers),
        "view": dict(zip(("left", "top", "right", "bottom"), result.view, strict=True)),
        "class_index": shown.class_index,
        "class_name": shown.class_name or None,
        "score": shown.score,
        "score_kind": shown.score_kind,
        "predicted": shown.is_predicted,
        "targets": list(shown.targets),
        "against": list(shown.rival_names),
        "direction": "low" if shown.is_low else None,
        "map_status": shown.map_status,
        **_create_box_cells(shown.boxes),
        "boxes": [asdict(box) for box in shown.boxes],
        "mask": None if shown.mask is None else dict(shown.mask),
        "files": dict(shown.files),
    }


def _create_box_cells(boxes: Iterable[Box]) -> dict[str, Any]:
    """The corners and the score of the largest box, each None without a box."""
    largest = max(boxes, key=lambda box: (box.x2 - box.x1) * (box.y2 - box.y1), default=None)
    if largest is None:
        return dict.fromkeys(("x1", "y1", "x2", "y2", "box_score"))
    corners = asdict(largest)
    return {"box_score": corners.pop("score"), **corners}
