"""The training curve."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from camcli.io.charts import encode_chart
from camcli.training.task import EpochResult

VALIDATION_CURVES = (("top1", "top-1"), ("gt_known", "GT-known, best threshold"))


def draw_training_curve(epochs: Sequence[EpochResult]) -> bytes:
    """A PNG: the loss on the left, top-1 and GT-known on the right.

    The loss of epochs is drawn over the epochs, that of fits of a head over their iterations.
    """
    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_loss = _draw_fit_losses if epochs[0].losses else _draw_epoch_losses
    _draw_validation(right, epochs, draw_loss(left, right, epochs))
    return encode_chart(figure)


def _draw_fit_losses(left: Axes, right: Axes, epochs: Sequence[EpochResult]) -> list[float]:
    """The loss of each fit; returns the positions of the fits on the right."""
    for epoch in epochs:
        iterations = range(1, len(epoch.losses) + 1)
        left.plot(iterations, epoch.losses, label=f"decay {epoch.decay:g}")
    left.set(xlabel="iteration of L-BFGS", ylabel="loss, decay included", yscale="log")
    left.legend()
    right.set(xlabel="decay", xscale="log")
    return [epoch.decay or 0 for epoch in epochs]


def _draw_epoch_losses(left: Axes, right: Axes, epochs: Sequence[EpochResult]) -> list[float]:
    """The loss of each epoch; returns the positions of the epochs on the right."""
    numbers: list[float] = [epoch.number for epoch in epochs]
    left.plot(numbers, [epoch.loss for epoch in epochs], marker="o", markersize=3)
    left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    right.set(xlabel="epoch")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    return numbers


def _draw_validation(axes: Axes, epochs: Sequence[EpochResult], positions: Sequence[float]) -> None:
    for name, label in VALIDATION_CURVES:
        values = [getattr(epoch.scores, name) for epoch in epochs]
        if None not in values:
            axes.plot(
                positions, values, marker="o", markersize=3, label=f"{label} {values[-1]:.3f}"
            )
    axes.set(ylabel="validation", ylim=(0, 1.03))
    if axes.get_lines():
        axes.legend(loc="lower right")
