"""Rotate or mirror annotations of stored pixels, as the EXIF data of the image demands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from PIL.Image import Transpose

from camcli.evaluation.datasets.annotations import Annotation, Corners, MaskArray, MaskLoader

MaskTransposer = Callable[[MaskArray], MaskArray]

# What each transpose does to a mask (rows, columns).
MASK_TRANSPOSES: Mapping[Transpose, MaskTransposer] = {
    Transpose.FLIP_LEFT_RIGHT: lambda a: a[:, ::-1],
    Transpose.ROTATE_180: lambda a: a[::-1, ::-1],
    Transpose.FLIP_TOP_BOTTOM: lambda a: a[::-1],
    Transpose.TRANSPOSE: lambda a: a.T,
    Transpose.ROTATE_270: lambda a: np.rot90(a, -1),
    Transpose.TRANSVERSE: lambda a: a[::-1, ::-1].T,
    Transpose.ROTATE_90: lambda a: np.rot90(a, 1),
}
# What each transpose does to the point (x, y) of a stored image of w x h.
POINT_TRANSPOSES: Mapping[
    Transpose, Callable[[float, float, float, float], tuple[float, float]]
] = {
    Transpose.FLIP_LEFT_RIGHT: lambda x, y, w, h: (w - x, y),
    Transpose.ROTATE_180: lambda x, y, w, h: (w - x, h - y),
    Transpose.FLIP_TOP_BOTTOM: lambda x, y, w, h: (x, h - y),
    Transpose.TRANSPOSE: lambda x, y, w, h: (y, x),
    Transpose.ROTATE_270: lambda x, y, w, h: (h - y, x),
    Transpose.TRANSVERSE: lambda x, y, w, h: (h - y, w - x),
    Transpose.ROTATE_90: lambda x, y, w, h: (y, w - x),
}
SIDEWAYS_TRANSPOSES = {
    Transpose.TRANSPOSE,
    Transpose.ROTATE_270,
    Transpose.TRANSVERSE,
    Transpose.ROTATE_90,
}


def transpose_annotation(
    annotation: Annotation, transpose: Transpose | None, size: tuple[int, int]
) -> Annotation:
    """Transpose an annotation like its image, which has `size` (W, H) when it is upright.

    An annotation stays as it is if its own size is that of the upright image only.
    """
    if transpose is None:
        return annotation
    stored = size[::-1] if transpose in SIDEWAYS_TRANSPOSES else size
    if annotation.size == size != stored:
        return annotation
    width, height = annotation.size or stored
    boxes = tuple(_transpose_box(box, transpose, width, height) for box in annotation.boxes)
    masks, ignored = (
        tuple(_defer_transpose(mask, MASK_TRANSPOSES[transpose]) for mask in own)
        for own in (annotation.masks, annotation.ignored_masks)
    )
    upright = (height, width) if transpose in SIDEWAYS_TRANSPOSES else (width, height)
    return replace(annotation, boxes=boxes, masks=masks, ignored_masks=ignored, size=upright)


def _transpose_box(box: Corners, transpose: Transpose, width: float, height: float) -> Corners:
    (x1, y1), (x2, y2) = (
        POINT_TRANSPOSES[transpose](x, y, width, height) for x, y in (box[:2], box[2:])
    )
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _defer_transpose(mask: MaskLoader, transpose: MaskTransposer) -> MaskLoader:
    return partial(_load_transposed_mask, mask, transpose)


def _load_transposed_mask(mask: MaskLoader, transpose: MaskTransposer) -> MaskArray:
    return transpose(mask())
