"""The picture of the sanity checks: strips of maps, and their similarity part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from camcli.core.geometry import normalize_array
from camcli.evaluation.faithfulness.sanity_checks import Maps, SanityReport, Similarity

MAX_STRIP_IMAGES = 2
COLORMAP = "inferno"
DISPLAY_PERCENTILE = 99.5  # or single pixels darken the rest of a pixel map


def draw_sanity(report: SanityReport) -> Figure | None:
    """Draw maps while more and more of the network is random, and how alike they stay."""
    kinds = [kind for kind in ("cascade", "independent") if report.example_maps[kind]]
    if not kinds:
        return None
    original = report.example_maps["original"][0]
    paths = list(original)[:MAX_STRIP_IMAGES]
    strips = len(report.rows) * len(paths)
    heights = [0.78 * strips + 0.7, 3.4]
    columns = len(report.part_names) + 1
    figure = Figure(
        figsize=(max(9, 0.82 * columns + 1.6), sum(heights)), dpi=110, layout="constrained"
    )
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_strips(above, report, [original, *report.example_maps[kinds[0]]], paths, kinds[0])
    for axes, kind in zip(below.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        _draw_similarity(axes, report, kind)
    return figure


def _draw_strips(
    figure: SubFigure, report: SanityReport, steps: Sequence[Maps], paths: Sequence[str], kind: str
) -> None:
    title = {"cascade": "random from the classifier down to …", "independent": "random: only …"}
    figure.suptitle(title[kind], fontsize=9, x=0.02, ha="left")
    lines = [(path, row) for path in paths for row in range(len(report.rows))]
    grid = figure.subplots(len(lines), len(steps), squeeze=False)
    for axes_row, (path, row) in zip(grid, lines, strict=True):
        for axes, maps in zip(axes_row, steps, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            status, values = maps[path][row] if path in maps else ("missing", np.zeros((1, 1)))
            if status == "ok":
                clipped = np.minimum(values, np.percentile(values, DISPLAY_PERCENTILE))
                shown = normalize_array(np.asarray(clipped, np.float32))
                axes.imshow(shown, cmap=COLORMAP, vmin=0, vmax=1, interpolation="bilinear")
            else:
                axes.text(0.5, 0.5, "blank", ha="center", va="center", fontsize=6)
        label = report.rows[row].method
        axes_row[0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    for axes, name in zip(grid[0], ["nothing", *report.part_names], strict=False):
        axes.set_title(name, fontsize=6.5)


def _draw_similarity(axes: Axes, report: SanityReport, kind: str) -> None:
    """Spearman's correlation (solid) and SSIM (dotted) with the original maps, part by part."""
    places = np.arange(len(report.part_names))
    colors = matplotlib.color_sequences["tab10"]
    for number, row in enumerate(report.rows):
        color = colors[number % len(colors)]
        steps: Mapping[str, Similarity] = row.cascade if kind == "cascade" else row.independent
        found = list(steps.values())
        axes.plot(places, _get_values(found, "spearman"), color=color, label=row.method)
        axes.plot(places, _get_values(found, "ssim"), color=color, linestyle=":", linewidth=1)
        if row.null.low is not None and row.null.high is not None:
            axes.axhspan(row.null.low, row.null.high, color=color, alpha=0.1, lw=0)
    axes.set_xticks(places, report.part_names, rotation=45, ha="right", fontsize=7)
    axes.set_ylim(-0.5, 1.03)
    axes.set_title(
        f"{kind}: correlation (solid), SSIM (dotted); bands: maps of different images",
        fontsize=8,
        loc="left",
    )
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


def _get_values(steps: Sequence[Similarity], name: str) -> list[float]:
    return [np.nan if (value := getattr(step, name)) is None else value for step in steps]
