"""Records of one image: what goes in, which passes the network runs, and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from camcli.core.types import ImageSource, MapStatus
from camcli.evaluation.faithfulness.faithfulness_options import FillName
from camcli.evaluation.faithfulness.fills import Fills
from camcli.evaluation.faithfulness.pixel_ranks import PixelRanks
from camcli.evaluation.predictions import EvaluationRow

Order = Literal["morf", "lerf"]
"""Which pixels are removed first: the most relevant ones, or the least relevant ones."""


@dataclass(frozen=True, slots=True)
class CurveSpec:
    """A curve of confidences: the fill, the order, and the number of steps S from 0 to 1."""

    fill: FillName
    order: Order
    steps: int

    @property
    def name(self) -> str:
        """The name in images.jsonl, such as `zero_morf`."""
        return f"{self.fill}_{self.order}"


@dataclass(frozen=True, slots=True)
class PixelMap:
    """The map of one row at the size of the input: raw values (H,W), and in [0,1] in the view."""

    row: EvaluationRow
    values: Tensor
    mask: Tensor
    ranks: PixelRanks
    status: MapStatus


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image to score: its input (C,H,W), the class, the window in view, and a map per row."""

    source: ImageSource
    image: Tensor
    class_index: int
    window: tuple[int, int, int, int]
    fills: Fills
    pixel_maps: Sequence[PixelMap]
    true_class: int | None = None


@dataclass(frozen=True, slots=True)
class RowEvidence:
    """What the network answered for one row of an image; every metric follows from it.

    `curves` hold the confidences of each CurveSpec by its name, with both ends. `masked` is the
    confidence of the image times the map, `at_half` the one without the less relevant half.
    `cell_sums` are sums of the raw map, and `group_means` and `group_drops` belong to SaCo.
    """

    row: EvaluationRow
    status: MapStatus
    pixel_count: int
    tied_share: float
    coverage: float
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    masked: float | None = None
    at_half: float | None = None
    cell_sums: Sequence[float] = ()
    group_means: Sequence[float] = ()
    group_drops: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """What the network answered for one image: its confidence, and the evidence of every row.

    `cell_drops` are the logit's losses when one cell is removed; `left` is the confidence that is
    left when all pixels are gone, by fill.
    """

    source: ImageSource
    class_index: int
    predicted_class: int
    true_class: int | None
    confidence: float
    cell_drops: Sequence[float]
    left: Mapping[str, float]
    rows: Sequence[RowEvidence]
