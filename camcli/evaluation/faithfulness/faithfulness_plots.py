"""Plots of a report: mean curves with bands, and the agreement of metrics."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from camcli.evaluation.evaluation_plots import BASELINE_GRAYS, shorten_label
from camcli.evaluation.faithfulness.faithfulness_report import FaithfulnessReport, FaithfulnessRow

CURVE_TITLES = {
    "zero_morf": "Deletion: the most relevant pixels become grey ↓",
    "blur_lerf": "Insertion: the least relevant pixels become blurred ↑",
    "linear_morf": "ROAD: the most relevant pixels are imputed ↓",
    "linear_lerf": "ROAD: the least relevant pixels are imputed ↑",
    "zero_lerf": "The least relevant pixels become grey ↑",
    "blur_morf": "The most relevant pixels become blurred ↓",
}


FILL_TITLES = {
    "zero_morf": "most relevant → grey",
    "zero_lerf": "least relevant → grey",
    "blur_morf": "most relevant → blurred",
    "blur_lerf": "least relevant → blurred",
    "linear_morf": "most relevant → imputed",
    "linear_lerf": "least relevant → imputed",
}


def draw_curves(report: FaithfulnessReport) -> Figure | None:
    """Plot the mean confidence of every row against the share of removed pixels."""
    names = [name for name in CURVE_TITLES if any(name in row.curves for row in report.rows)]
    if not names:
        return None
    rows = -(-len(names) // 2)
    figure = Figure(figsize=(11, 3.9 * rows + 0.9), dpi=120, layout="constrained")
    all_axes = figure.subplots(rows, 2, squeeze=False).flatten()
    shown = [row for row in report.rows if row.method != "reversed"]
    top = max(max(row.curves[name].mean) for row in shown for name in names if name in row.curves)
    for axes, name in zip(all_axes, names, strict=False):
        _draw_curve_panel(axes, name, shown, top)
    for axes in all_axes[len(names) :]:
        axes.set_axis_off()
    handles, labels = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def _draw_curve_panel(axes: Axes, name: str, rows: list[FaithfulnessRow], top: float) -> None:
    colors = iter(matplotlib.color_sequences["tab10"] * len(rows))
    grays = iter(BASELINE_GRAYS * len(rows))
    dashes = iter(("--", "--", ":", ":", "-.", "-.") * len(rows))
    for row in rows:
        color = next(grays) if row.row.baseline else next(colors)
        if name not in row.curves:
            continue
        curve = row.curves[name]
        style: dict[str, Any] = (
            {"linestyle": next(dashes), "linewidth": 1.1} if row.row.baseline else {}
        )
        axes.plot(curve.share, curve.mean, color=color, label=shorten_label(row.row.name), **style)
        if curve.low is not None and curve.high is not None and not row.row.baseline:
            axes.fill_between(curve.share, curve.low, curve.high, color=color, alpha=0.12, lw=0)
    axes.set_title(CURVE_TITLES[name], fontsize=10, loc="left")
    axes.set_xlabel("share of pixels removed", fontsize=9)
    axes.set_ylabel("confidence of the class", fontsize=9)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top * 1.08)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def draw_agreement(report: FaithfulnessReport) -> Figure | None:
    """Plot Kendall's tau between metrics over the rows as a matrix."""
    names = list(report.agreement)
    if len(names) < 2 or len(report.rows) < 3:
        return None
    values = np.array(
        [[np.nan if v is None else v for v in report.agreement[n].values()] for n in names], float
    )
    side = 2.2 + 0.62 * len(names)
    figure = Figure(figsize=(side + 0.6, side), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if abs(value) > 0.7 else "0.1"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_title("Do metrics rank the rows alike? (Kendall's τ)", fontsize=10, loc="left")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.7)
    return figure
