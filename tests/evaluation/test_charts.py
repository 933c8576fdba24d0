"""Charts and galleries: what they mark, what they name, and their formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from camcli.evaluation.datasets.annotations import Annotation
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.evaluation.evaluation_plots import (
    draw_iou_curves,
    draw_threshold_curves,
    find_best_range,
)
from camcli.evaluation.gallery import create_gallery_cell, format_gallery_title
from camcli.evaluation.localization_report import RowMetrics
from camcli.evaluation.predictions import EvaluationRow, Prediction
from camcli.io.charts import encode_chart

LEVELS = [0.0, 0.25, 0.5, 0.75, 1.0]
ROW = EvaluationRow("net", "gradcam", ("last",), 0.25)


def line(method: str, values: list[float]) -> RowMetrics:
    row = EvaluationRow("net", method, ("last",), 0.25)
    curves = {"threshold": LEVELS, "box_acc_at_threshold": values}
    return RowMetrics(row, 4, 0, {}, curves | {"iou": LEVELS, "gt_known_at_iou": values})


@pytest.mark.parametrize(
    ("values", "found"),
    [([1, 2, 3], (2, 2)), ([2, 2, 1, 2], (0, 1)), ([0, 0, 0], (0, 2)), ([5], (0, 0))],
)
def test_ties_of_the_best_are_a_range(values: list[float], found: tuple[int, int]) -> None:
    assert find_best_range(values) == found


def test_the_best_threshold_and_the_one_in_use_are_marked() -> None:
    chart = draw_threshold_curves([line("a", [0.2, 0.6, 0.6, 0.6, 0.0])], ["a"])
    (axes,) = chart.axes
    lines = [np.asarray(mark.get_xydata()) for mark in axes.get_lines()]
    points = [found[0].tolist() for found in lines if len(found) == 1]
    assert points == [[0.5, 0.6], [0.25, 0.6]]  # the middle of the ties, then the one in use
    texts = [text.get_text() for text in chart.legends[0].get_texts()]
    assert texts == ["a: 0.600 at 0.25 to 0.75", "best threshold", "threshold in use"]


def test_equal_curves_do_not_hide_each_other() -> None:
    same = [1.0, 0.8, 0.5, 0.2, 0.0]
    chart = draw_iou_curves([line(name, same) for name in "abc"], list("abc"))
    widths = [one.get_linewidth() for one in chart.axes[0].get_lines()[:3]]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3


def test_charts_are_the_same_bytes_in_every_format() -> None:
    def encode(chart_format: Any) -> bytes:
        return encode_chart(draw_iou_curves([line("a", LEVELS[::-1])], ["a"]), chart_format)

    for chart_format, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        assert encode(chart_format).startswith(start)
        assert encode(chart_format) == encode(chart_format)
    texts = [element.text for element in fromstring(encode("svg")).iter() if element.text]
    assert "share of images" in texts  # text stays text


@pytest.mark.parametrize(("rank", "ending"), [(None, ""), (0, " · predicted"), (4, " · ranked 5")])
def test_a_gallery_names_file_class_and_rank(rank: int | None, ending: str) -> None:
    path = SAMPLES / "coffee.jpg"
    annotation = Annotation("cups/coffee.jpg", Path(path), 1, ((150, 50, 450, 350),))
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    heatmap = np.zeros((224, 224), np.float32)
    heatmap[50:100, 50:100] = 1
    sample = EvaluationSample(0, annotation, 1)
    prediction = Prediction(sample, ROW, image, heatmap, "ok", (), rank)
    cell = create_gallery_cell(prediction, ["cat", "espresso"])
    assert cell.note == f"coffee.jpg\nespresso{ending}"
    green = (np.asarray(cell.image) == (60, 220, 90)).all(axis=2)
    wide = 260 / 600
    rows, columns = np.nonzero(green)
    assert abs(columns.min() - 150 * wide) < 3
    assert abs(rows.max() - 350 * wide) < 3
    assert 0.3 < green[rows.min()][columns.min() : columns.max()].mean() < 0.7  # dashed


def test_a_gallery_names_its_threshold() -> None:
    assert format_gallery_title(ROW).startswith("gradcam last · net\nthreshold 0.25 · ")
