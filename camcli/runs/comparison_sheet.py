"""Draw a comparison: a sheet of maps, and the matrix of their rank correlations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from camcli.io.grids import (
    GridCell,
    choose_column_count,
    compute_cell_size,
    draw_grid,
    draw_matrix,
    draw_row_head,
    wrap_cells,
)
from camcli.io.map_looks import format_values
from camcli.io.pictures import draw_explanation, format_class, format_class_title, mark_region
from camcli.io.writers import DrawingStyle
from camcli.runs.comparison import (
    Comparison,
    ComparisonRow,
    TimedResult,
    format_row_label,
    join_labels,
)


def draw_comparison(
    comparison: Comparison,
    target: int,
    method_names: Sequence[str],
    rows: Sequence[ComparisonRow],
    style: DrawingStyle,
) -> Image.Image:
    """Draw the image once, and every map under the name of its method."""
    shown = comparison.timed_results[0].result.explanations[target]
    table = _create_cells(comparison, target, method_names, rows, style)
    return draw_grid(format_class_title(shown), table)


def draw_correlations(
    comparison: Comparison, target: int, method_names: Sequence[str], rows: Sequence[ComparisonRow]
) -> Image.Image | None:
    """Draw the rank correlation of each pair of maps once; None for a single map."""
    labels = [
        join_labels(format_row_label(t, rows[t.row_index]), method_names[t.column_index])
        for t in comparison.timed_results
    ]
    if len(labels) < 2:
        return None
    values = comparison.spearman[target].copy()
    values[np.tril_indices(len(labels))] = np.nan
    return draw_matrix("Spearman's correlation", labels[:-1], labels[1:], values[:-1, 1:])


def _create_cells(
    comparison: Comparison,
    target: int,
    method_names: Sequence[str],
    rows: Sequence[ComparisonRow],
    style: DrawingStyle,
) -> list[list[GridCell]]:
    """Create the cells of the sheet: the image, or the head of a row, then the maps of the row."""
    image = comparison.timed_results[0].result.sample.image
    thumbnail = image.resize(compute_cell_size(*image.size, style.cell_pixels))
    by_place = {
        (t.row_index, t.column_index): _create_cell(
            t, target, method_names[t.column_index], rows[t.row_index], thumbnail, style
        )
        for t in comparison.timed_results
    }
    first = GridCell("image", thumbnail)
    if len(rows) == 1:
        cells = [first, *(by_place[0, c] for c in range(len(method_names)))]
        return wrap_cells(cells, choose_column_count(len(cells)))
    blank = GridCell("", Image.new("RGB", thumbnail.size, (255, 255, 255)))
    table = []
    for r, row in enumerate(rows):
        head = _format_row_head(comparison, r, row, target)
        start = GridCell(head, thumbnail) if r == 0 else draw_row_head(head, thumbnail.size)
        table.append([start, *(by_place.get((r, c), blank) for c in range(len(method_names)))])
    return table


def _create_cell(
    timed_result: TimedResult,
    target: int,
    method_name: str,
    row: ComparisonRow,
    thumbnail: Image.Image,
    style: DrawingStyle,
) -> GridCell:
    result = timed_result.result
    explanation = result.explanations[target]
    own_style = replace(style, input_size=row.base_config.model.input_size)
    view = result.sample.view.to_image_size(*thumbnail.size)
    picture = draw_explanation(result, explanation, thumbnail, view, own_style)
    mark_region(picture, result, explanation, own_style)
    note = format_values(explanation.fused_map, own_style, result)
    return GridCell(method_name, picture, "" if result.has_concepts else note)


def _format_row_head(
    comparison: Comparison, row_index: int, row: ComparisonRow, target: int
) -> str:
    """Return the row's label and its class, because models may predict different classes."""
    own = [t.result for t in comparison.timed_results if t.row_index == row_index]
    class_label = format_class(own[0].explanations[target]) if own and row.label else ""
    return join_labels(row.label, class_label) or "image"
