"""The segmentation of each exported box, from the masks of `--save mask`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from camcli.review.exporters.export_content import ExportImage, MaskForm
from camcli.review.result_lines import StoredExplanation


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A mask as COCO writes it, its area in pixels, and the holes that its polygons fill."""

    value: Any
    area: int
    hole_count: int = 0


def create_segmentations(image: ExportImage, form: MaskForm) -> list[Segmentation | None]:
    """The segmentation of each box of an image; None where the mask is missing or damaged."""
    by_explanation = groupby(image.objects, key=lambda item: id(item.explanation))
    return [
        segmentation
        for _, items in by_explanation
        for segmentation in _iter_segmentations(next(items).explanation, form)
    ]


def _iter_segmentations(
    explanation: StoredExplanation, form: MaskForm
) -> Iterator[Segmentation | None]:
    from camcli.review.exporters.mask_outlines import (
        load_box_masks,
        mask_to_polygons,
        mask_to_runs,
    )

    try:
        masks = load_box_masks(explanation.mask or {}, explanation.boxes)
    except (KeyError, ValueError):
        yield from [None] * len(explanation.boxes)
        return
    for mask in masks:
        area = int(mask.sum())
        if form == "polygons" and area:
            polygons, hole_count = mask_to_polygons(mask)
            yield Segmentation(polygons, area, hole_count)
        else:  # an empty mask has no polygon
            yield Segmentation(mask_to_runs(mask), area)
