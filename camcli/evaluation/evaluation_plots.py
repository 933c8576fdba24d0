"""Plots of a report: accuracy against threshold, accuracy against IoU, and error types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from camcli.evaluation.localization_report import RowMetrics
from camcli.evaluation.metrics.iou import ERROR_TYPES

MAX_LABEL_LENGTH = 44
WIDEST_LINE, THINNEST_LINE = 3.6, 1.4
BASELINE_GRAYS = ("0.35", "0.65")
ERROR_TYPE_COLORS = ("#4c9f70", "#b0413e", "#e2a03f", "#7aa6c2", "#3d5a80", "#9a8c98")


def draw_threshold_curves(row_metrics: Sequence[RowMetrics], names: Sequence[str]) -> Figure:
    """Plot box accuracy at each threshold, with marks at the best one and at the one in use."""
    figure, axes = _create_figure("Box accuracy (IoU ≥ 0.5) against the threshold")
    for line, name, look in zip(row_metrics, names, _choose_line_styles(row_metrics), strict=True):
        x, y = line.curves["threshold"], line.curves["box_acc_at_threshold"]
        first, last = find_best_range(y)
        span = f"{x[first]:.2f}" + (f" to {x[last]:.2f}" if last > first else "")
        axes.plot(x, y, **look, label=f"{shorten_label(name)}: {y[first]:.3f} at {span}")
        middle = (first + last) // 2
        axes.plot(x[middle], y[middle], "o", color=look["color"], markersize=5, zorder=3)
        if isinstance(line.row.threshold, float):
            height = np.interp(line.row.threshold, x, y)
            axes.plot(line.row.threshold, height, "o", color=look["color"], mfc="white", zorder=3)
    axes.plot([], [], "o", color="0.3", markersize=5, label="best threshold")
    axes.plot([], [], "o", color="0.3", mfc="white", label="threshold in use")
    axes.set_xlabel("threshold, share of the maximum")
    axes.set_ylabel("share of images")
    return _finish_curves(figure, axes)


def find_best_range(values: Sequence[float]) -> tuple[int, int]:
    """The first index of the largest value, and the last one of the run that begins there."""
    first = max(range(len(values)), key=values.__getitem__)
    last = first
    while last + 1 < len(values) and values[last + 1] == values[first]:
        last += 1
    return first, last


def draw_iou_curves(row_metrics: Sequence[RowMetrics], names: Sequence[str]) -> Figure:
    """Plot the share of images whose box has at least each IoU."""
    figure, axes = _create_figure("Share of images whose box has at least an IoU")
    for line, name, look in zip(row_metrics, names, _choose_line_styles(row_metrics), strict=True):
        label = f"{shorten_label(name)} at {line.row.threshold}"
        axes.plot(line.curves["iou"], line.curves["gt_known_at_iou"], **look, label=label)
    axes.axvline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("IoU with the best-fitting ground-truth box")
    axes.set_ylabel("share of images")
    return _finish_curves(figure, axes)


def draw_error_types(row_metrics: Sequence[RowMetrics], names: Sequence[str]) -> Figure | None:
    """Plot the shares of the error types as bars; None without class predictions."""
    rows = [
        (shorten_label(n), line)
        for n, line in zip(names, row_metrics, strict=True)
        if "split" in line.curves
    ]
    if not rows:
        return None
    figure, axes = _create_figure(
        "Top-1 localization: right, or type of error", 1.2 + 0.42 * len(rows)
    )
    left = [0.0] * len(rows)
    for i, (kind, color) in enumerate(zip(ERROR_TYPES, ERROR_TYPE_COLORS, strict=True)):
        width = [line.curves["split"][i] for _, line in rows]
        bars = axes.barh([n for n, _ in rows], width, left=left, color=color, label=kind)
        texts = [f"{share:.0%}" if share >= 0.04 else "" for share in width]
        axes.bar_label(bars, texts, label_type="center", fontsize=7, color="white")
        left = [a + b for a, b in zip(left, width, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.grid(visible=False)
    figure.legend(loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    return figure


def shorten_label(name: str) -> str:
    """The end of a long name, which tells paths apart; `$` is escaped, as it starts a formula."""
    short = name if len(name) <= MAX_LABEL_LENGTH else f"…{name[-MAX_LABEL_LENGTH:]}"
    return short.replace("$", r"\$")


def _choose_line_styles(lines: Sequence[RowMetrics]) -> list[dict[str, Any]]:
    """A colour for each row. Later lines are thinner, so that they do not hide equal ones."""
    colours = iter(matplotlib.color_sequences["tab10"] * (1 + len(lines) // 10))
    greys = iter(BASELINE_GRAYS * len(lines))
    count = sum(not line.row.baseline for line in lines)
    widths = iter(np.linspace(WIDEST_LINE, THINNEST_LINE, count).tolist())
    return [
        {"color": next(greys), "linestyle": "--", "linewidth": 1.2}
        if line.row.baseline
        else {"color": next(colours), "linewidth": next(widths)}
        for line in lines
    ]


def _create_figure(title: str, height: float = 5.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    return figure, axes


def _finish_curves(figure: Figure, axes: Axes) -> Figure:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure
