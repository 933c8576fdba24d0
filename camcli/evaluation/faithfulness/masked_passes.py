"""The passes of one image: its input, changed in every way that the metrics need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from camcli.evaluation.faithfulness.faithfulness_metrics import ROAD_STEPS, FaithfulnessMetric
from camcli.evaluation.faithfulness.metric_values import compute_step_counts
from camcli.evaluation.faithfulness.pixel_ranks import PixelRanks
from camcli.evaluation.faithfulness.scored_image import (
    CurveSpec,
    PixelMap,
    PreparedImage,
)

SHARED = -1  # the row of passes that all rows share
SACO_GROUPS = 10


class PassKey(NamedTuple):
    """What a pass is for: a row, or SHARED, a kind such as `zero_morf`, and a step."""

    row: int
    kind: str
    step: int


class PassResult(NamedTuple):
    """The confidence and the logit of the class, and the class with the highest logit."""

    confidence: float
    logit: float
    predicted_class: int


@dataclass(frozen=True, slots=True)
class PassPlan:
    """Which passes to run: the metrics, the steps of a curve, and the cells of a side."""

    metrics: Sequence[FaithfulnessMetric]
    steps: int = 20
    cells: int = 7

    @property
    def curves(self) -> list[CurveSpec]:
        """The curves to run."""
        return list_curve_specs(self.metrics, self.steps)

    def needs(self, extra: str) -> bool:
        """Whether a metric needs these passes besides the curves."""
        return any(extra in metric.extras for metric in self.metrics)


def list_curve_specs(metrics: Sequence[FaithfulnessMetric], steps: int) -> list[CurveSpec]:
    """The curves that these metrics need, each once. ROAD has steps of its own."""
    names = dict.fromkeys(name for metric in metrics for name in metric.curves)
    return [
        CurveSpec(fill, order, ROAD_STEPS if fill == "linear" else steps)  # type: ignore[arg-type]
        for name in names
        for fill, order in [name.split("_")]
    ]


Passes = Iterator[tuple[list[PassKey], Tensor]]


def iter_passes(plan: PassPlan, image: PreparedImage) -> Passes:
    """Yield the changed inputs of an image, several at a time, with their keys."""
    yield [PassKey(SHARED, "image", 0)], image.image[None]
    yield from _iter_blank_passes(plan, image)
    if plan.needs("cells"):
        yield from _iter_cell_passes(plan, image)
    owners = find_rank_owners(image.pixel_maps)
    for number, pixel_map in enumerate(image.pixel_maps):
        if owners[number] == number:
            yield from _iter_rank_passes(plan, image, number, pixel_map.ranks)
        if plan.needs("masked"):
            yield [PassKey(number, "masked", 0)], _multiply(image, pixel_map.mask)[None]


def find_rank_owners(pixel_maps: Sequence[PixelMap]) -> list[int]:
    """For each map the first one with the same ranks: equal ranks need only one run."""
    owners: list[int] = []
    for number, pixel_map in enumerate(pixel_maps):
        ranks = pixel_map.ranks.most_first
        same = (
            n for n in sorted(set(owners)) if torch.equal(pixel_maps[n].ranks.most_first, ranks)
        )
        owners.append(next(same, number))
    return owners


def _iter_blank_passes(plan: PassPlan, image: PreparedImage) -> Passes:
    in_view = find_view_mask(image)
    for fill in dict.fromkeys(curve.fill for curve in plan.curves):
        blank = torch.where(in_view, image.fills.create_blank(fill), image.image)
        yield [PassKey(SHARED, f"left_{fill}", 0)], blank[None]


def find_view_mask(image: PreparedImage) -> Tensor:
    """The pixels (H,W) that show the image: padding is no evidence."""
    left, top, right, bottom = image.window
    mask = torch.zeros(image.image.shape[1:], dtype=torch.bool, device=image.image.device)
    mask[top:bottom, left:right] = True
    return mask


def list_cells(plan: PassPlan, image: PreparedImage) -> list[tuple[slice, slice]]:
    """The cells of the grid that show a part of the image: rows and columns of the input."""
    height, width = image.image.shape[1:]
    left, top, right, bottom = image.window
    edges = [
        [round(i * side / plan.cells) for i in range(plan.cells + 1)] for side in (height, width)
    ]
    return [
        (slice(y0, y1), slice(x0, x1))
        for y0, y1 in pairwise(edges[0])
        for x0, x1 in pairwise(edges[1])
        if y0 < bottom and y1 > top and x0 < right and x1 > left
    ]


def _iter_cell_passes(plan: PassPlan, image: PreparedImage) -> Passes:
    for step, (rows, columns) in enumerate(list_cells(plan, image)):
        changed = image.image.clone()
        changed[:, rows, columns] = 0
        yield [PassKey(SHARED, "cell", step)], changed[None]


def _iter_rank_passes(plan: PassPlan, image: PreparedImage, row: int, ranks: PixelRanks) -> Passes:
    for curve in plan.curves:
        counts = compute_step_counts(ranks.pixel_count, curve.steps)
        keys = [PassKey(row, curve.name, step) for step in range(1, curve.steps)]
        yield keys, remove_pixels(image, ranks, curve, counts[1:-1])
    if plan.needs("half") and not has_half_on_curve(plan):
        half = CurveSpec("zero", "lerf", 2)
        counts = compute_step_counts(ranks.pixel_count, 2)
        yield [PassKey(row, "half", 0)], remove_pixels(image, ranks, half, counts[1:2])
    if plan.needs("groups"):
        yield (
            [PassKey(row, "group", step) for step in range(SACO_GROUPS)],
            image.fills.remove("mean", create_group_masks(ranks).to(image.image.device)),
        )


def has_half_on_curve(plan: PassPlan) -> bool:
    """Whether a curve already has the pass without the less relevant half."""
    return plan.steps % 2 == 0 and any(curve.name == "zero_lerf" for curve in plan.curves)


def remove_pixels(
    image: PreparedImage, ranks: PixelRanks, curve: CurveSpec, counts: Sequence[int]
) -> Tensor:
    """The input without its first k pixels, for each count k: -> (M,C,H,W)."""
    order = ranks.most_first if curve.order == "morf" else ranks.least_first
    device = image.image.device
    masks = order.to(device) < torch.tensor(counts, device=device)[:, None, None]
    return image.fills.remove(curve.fill, masks)


def create_group_masks(ranks: PixelRanks) -> Tensor:
    """SaCo's groups of pixels by falling relevance, as masks (G,H,W) of equal size."""
    edges = compute_step_counts(ranks.pixel_count, SACO_GROUPS)
    order = ranks.most_first
    return torch.stack([(order >= low) & (order < high) for low, high in pairwise(edges)])


def _multiply(image: PreparedImage, mask: Tensor) -> Tensor:
    """The image times the map in [0,1]; pixels out of view stay."""
    weights = torch.where(find_view_mask(image), mask.to(image.image.device), 1)
    return image.image * weights
