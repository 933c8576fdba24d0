"""Pictures of what the network saw: some images, with pixels removed, and its confidence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from camcli.core.errors import to_one_line
from camcli.core.types import Transform
from camcli.evaluation.faithfulness.faithfulness_plots import FILL_TITLES
from camcli.evaluation.faithfulness.masked_passes import PassPlan, remove_pixels
from camcli.evaluation.faithfulness.scored_image import CurveSpec, PreparedImage
from camcli.models.model import Model

MAX_EXAMPLES = 4
SHOWN_SHARES = (0.1, 0.3, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class _Cell:
    """One picture (H,W,3) in [0,1] with its title."""

    picture: NDArray[np.floating]
    title: str


def draw_pass_examples(model: Model, plan: PassPlan, images: Sequence[PreparedImage]) -> bytes:
    """Draw the first row's map and the changed inputs of some images, as JPEG.

    Each line is one image and one curve; the number above a picture is the confidence of the class.
    """
    lines = [
        [_create_first_cell(model, image, curve), *_create_curve_cells(model, image, curve)]
        for image in images
        for curve in plan.curves
    ]
    columns = len(SHOWN_SHARES) + 1
    figure = Figure(figsize=(2.1 * columns, 2.32 * len(lines)), dpi=100, layout="constrained")
    for axes_row, cells in zip(
        figure.subplots(len(lines), columns, squeeze=False), lines, strict=True
    ):
        for axes, cell in zip(axes_row, cells, strict=True):
            axes.imshow(cell.picture)
            axes.set_title(cell.title, fontsize=7.5)
            axes.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", pil_kwargs={"quality": 88})
    return buffer.getvalue()


def _create_first_cell(model: Model, image: PreparedImage, curve: CurveSpec) -> _Cell:
    """The image, brighter where the map is high."""
    picture = _to_picture(image.image, model.transform)
    mask = image.pixel_maps[0].mask.numpy()[..., None]
    name = model.labels.names[image.class_index].replace("$", r"\$")
    title = (
        f"{to_one_line(name)[:22]} · {image.pixel_maps[0].row.method}\n{FILL_TITLES[curve.name]}"
    )
    return _Cell(picture * (0.25 + 0.75 * mask), title)


def _create_curve_cells(model: Model, image: PreparedImage, curve: CurveSpec) -> list[_Cell]:
    ranks = image.pixel_maps[0].ranks
    counts = [round(share * ranks.pixel_count) for share in SHOWN_SHARES]
    inputs = remove_pixels(image, ranks, curve, counts)
    found = model.to_probabilities(model.network(inputs).float())[:, image.class_index]
    return [
        _Cell(_to_picture(one, model.transform), f"{share:.0%} removed: {confidence:.2f}")
        for one, share, confidence in zip(inputs, SHOWN_SHARES, found.tolist(), strict=True)
    ]


def _to_picture(inputs: Tensor, transform: Transform) -> NDArray[np.float32]:
    """Undo the normalization: (C,H,W) -> (H,W,3) in [0,1]; other channels become gray."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (transform.mean, transform.std))
    shown = (inputs.cpu() * std + mean).clamp(0, 1)
    shown = shown if len(shown) == 3 else shown.mean(dim=0, keepdim=True).expand(3, -1, -1)
    return np.asarray(shown.permute(1, 2, 0), np.float32)
