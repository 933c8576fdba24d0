"""Measure how far one map of two runs differs: score, correlations, overlap of the boxes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.core.errors import ImageError
from camcli.review.diff.box_overlap import compute_boxes_iou
from camcli.review.result_lines import MAP_KIND, StoredExplanation, StoredResult

if TYPE_CHECKING:
    from PIL import Image

    from camcli.review.map_correlation import MapSimilarity

MAX_PROBLEM_CHARACTERS = 300
SCORE_DIGITS = 9  # 0.55 - 0.5 is not above 0.05


@dataclass(frozen=True, slots=True)
class MapMeasures:
    """What was measured of two maps; None where a measure is undefined or was not taken.

    `score_change` is the new score minus the old one. `map_problem` says why the maps cannot be
    compared; it is empty where they can, or need not be.
    """

    score_change: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    iou: float | None = None
    map_problem: str = ""


def measure_maps(
    base: StoredResult,
    new: StoredResult,
    base_explanation: StoredExplanation,
    new_explanation: StoredExplanation,
    folders: tuple[Path, Path],
) -> MapMeasures:
    """Measure two explanations, whose maps lie in the folders of the two runs.

    Maps and boxes are measured only if the images have one size, and maps only if both are ok.
    """
    change = _compute_score_change(base_explanation, new_explanation)
    if (base.width, base.height) != (new.width, new.height):
        return MapMeasures(score_change=change)
    iou = compute_boxes_iou(base_explanation.boxes, new_explanation.boxes)
    if not base_explanation.map_status == new_explanation.map_status == "ok":
        return MapMeasures(score_change=change, iou=iou)

    try:
        found = _correlate_files(base, new, base_explanation, new_explanation, folders)
    except ImageError as error:
        return MapMeasures(change, iou=iou, map_problem=str(error))
    return MapMeasures(change, found.pearson, found.spearman, iou, _describe_constant(found))


def _correlate_files(
    base: StoredResult,
    new: StoredResult,
    base_explanation: StoredExplanation,
    new_explanation: StoredExplanation,
    folders: tuple[Path, Path],
) -> MapSimilarity:
    from camcli.review.map_correlation import compare_maps

    base_map = _read_map("base", base_explanation, folders[0])
    new_map = _read_map("new", new_explanation, folders[1])
    return compare_maps(base_map, new_map, base.view, new.view)


def _read_map(run: str, explanation: StoredExplanation, folder: Path) -> Image.Image:
    """The map of an explanation. Raises ImageError with the name of the run."""
    from camcli.review.map_correlation import read_grey_map

    if MAP_KIND not in explanation.files:
        raise ImageError(f"the {run} run has no map of it")
    try:
        return read_grey_map(folder / explanation.files[MAP_KIND])
    except ImageError as error:
        text = f"cannot read the map of the {run} run: {error}"
        raise ImageError(text[:MAX_PROBLEM_CHARACTERS]) from None


def _describe_constant(found: MapSimilarity) -> str:
    """Why there is no correlation where only one map is constant; two constant maps are equal."""
    if found.is_base_constant == found.is_new_constant:
        return ""
    return f"only the map of the {'base' if found.is_base_constant else 'new'} run is constant"


def _compute_score_change(base: StoredExplanation, new: StoredExplanation) -> float | None:
    if base.score is None or new.score is None or base.score_kind != new.score_kind:
        return None
    largest = sys.float_info.max  # the difference of two huge values may overflow
    return round(min(largest, max(-largest, new.score - base.score)), SCORE_DIGITS)
