"""How a training went, drawn."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from camcli.training.task import EpochResult


def draw_training_curve(epochs: Sequence[EpochResult]) -> bytes:
    """Loss, top-1 and GT-known over epochs as a PNG; of a single fit its loss over iterations."""
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    if epochs[0].losses:
        for epoch in epochs:
            label = f"decay {epoch.decay:g}"
            left.plot(range(1, len(epoch.losses) + 1), epoch.losses, label=label)
        left.set(xlabel="iteration of L-BFGS", ylabel="loss, decay included", yscale="log")
        left.legend()
        places: list[float] = [epoch.decay or 0 for epoch in epochs]
        right.set(xlabel="decay", xscale="log")
    else:
        places = [epoch.number for epoch in epochs]
        left.plot(places, [epoch.loss for epoch in epochs], marker="o", markersize=3)
        left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
        right.set(xlabel="epoch")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for name, label in (("top1", "top-1"), ("gt_known", "GT-known, best threshold")):
        values = [getattr(epoch.judged, name) for epoch in epochs]
        if None not in values:
            right.plot(places, values, marker="o", markersize=3, label=f"{label} {values[-1]:.3f}")
    right.set(ylabel="validation", ylim=(0, 1.03))
    if right.get_lines():
        right.legend(loc="lower right")
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()
