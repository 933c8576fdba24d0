"""Plots of a report: accuracy against threshold, accuracy against IoU, and error types."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from camcli.evaluation.metrics.iou import ERROR_TYPES
from camcli.evaluation.report import RowMetrics

MAX_LABEL_LENGTH = 44
BASELINE_GRAYS = ("0.35", "0.65")
ERROR_TYPE_COLORS = ("#4c9f70", "#b0413e", "#e2a03f", "#7aa6c2", "#3d5a80", "#9a8c98")


def draw_threshold_curves(row_metrics: Sequence[RowMetrics], names: Sequence[str]) -> bytes:
    """Plot box accuracy at each threshold, with a mark at the best one, as PNG."""
    figure, axes = _create_figure("Box accuracy (IoU ≥ 0.5) against the threshold")
    for line, name, look in zip(row_metrics, names, _choose_line_styles(row_metrics), strict=True):
        x, y = line.curves["threshold"], line.curves["box_acc_at_threshold"]
        best = max(range(len(y)), key=y.__getitem__)
        axes.plot(x, y, **look, label=f"{shorten_label(name)}: {y[best]:.3f} at {x[best]:.2f}")
        axes.plot(x[best], y[best], "o", color=look["color"], markersize=4)
    axes.set_xlabel("threshold, share of the maximum")
    axes.set_ylabel("share of images")
    return _curves_to_png(figure, axes)


def draw_iou_curves(row_metrics: Sequence[RowMetrics], names: Sequence[str]) -> bytes:
    """Plot the share of images whose box has at least each IoU, as PNG."""
    figure, axes = _create_figure("Share of images whose box has at least an IoU")
    for line, name, look in zip(row_metrics, names, _choose_line_styles(row_metrics), strict=True):
        label = f"{shorten_label(name)} at {line.row.threshold}"
        axes.plot(line.curves["iou"], line.curves["gt_known_at_iou"], **look, label=label)
    axes.axvline(0.5, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("IoU with the best-fitting ground-truth box")
    axes.set_ylabel("share of images")
    return _curves_to_png(figure, axes)


def draw_error_types(row_metrics: Sequence[RowMetrics], names: Sequence[str]) -> bytes | None:
    """Plot the shares of the error types as bars, as PNG; None without class predictions."""
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
    axes.grid(visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=6, fontsize=8, frameon=False)
    return figure_to_png(figure)


def shorten_label(name: str) -> str:
    """The end of a long name, which tells paths apart; `$` is escaped, as it starts a formula."""
    short = name if len(name) <= MAX_LABEL_LENGTH else f"…{name[-MAX_LABEL_LENGTH:]}"
    return short.replace("$", r"\$")


def _choose_line_styles(lines: Sequence[RowMetrics]) -> list[dict[str, Any]]:
    colours = iter(matplotlib.color_sequences["tab10"] * (1 + len(lines) // 10))
    greys = iter(BASELINE_GRAYS * len(lines))
    return [
        {"color": next(greys), "linestyle": "--", "linewidth": 1.2}
        if line.row.baseline
        else {"color": next(colours), "linewidth": 1.8}
        for line in lines
    ]


def _create_figure(title: str, height: float = 4.6) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    return figure, axes


def _curves_to_png(figure: Figure, axes: Axes) -> bytes:
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, frameon=False)
    return figure_to_png(figure)


def figure_to_png(figure: Figure) -> bytes:
    """Encode a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
