"""An explanation in a notebook, and a run that `camcli explain` left behind."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, Cli, small
from PIL import Image

import camcli


def read_page(page: str) -> tuple[Image.Image, str]:
    """The one picture of a page, and the page without it."""
    assert {*re.findall(r"<(\w+)", page)} <= {"div", "b", "br", "img"}
    (data,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return Image.open(BytesIO(base64.b64decode(data))), page.replace(data, "")


def test_an_explanation_shows_a_small_overlay_and_what_it_is() -> None:
    large = Image.new("RGB", (3000, 1500), (30, 90, 200))
    large.paste((250, 250, 60), (0, 0, 900, 900))
    (result,) = camcli.explain(small("test_efficientnet"), large, "layercam", layers="stage1..3")
    picture, page = read_page(result._repr_html_())
    assert picture.size == (640, 320)
    overlay = result.overlay(boxes=True).resize((640, 320))
    difference = np.abs(np.asarray(overlay, float) - np.asarray(picture, float))
    assert difference.mean() < 4
    for text in ("image 0", "layercam", *result.layers, f"{result.score:.2f}", "predicted", "box"):
        assert text in page


def test_the_names_of_an_explanation_are_text(tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<b>.png"
    Image.open(PHOTOS[0]).resize((60, 40)).save(path)
    labels = ["<img onerror=alert(2)>"] * 10
    model = small("test_efficientnet")
    model = camcli.wrap(model.network, size=96, labels=labels)
    (result,) = camcli.explain(model, path)
    _, page = read_page(result._repr_html_())
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;img onerror=alert(2)&gt;" in page


def test_a_real_run_is_opened_again(
    cli: Cli, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = cli("explain", picture, *PHOTOS[:1], "--target", "top:2", "--threshold", "0.5")
    assert ran.status == 0, ran.err
    run = camcli.open_run("camcli-out")
    assert isinstance(run, camcli.StoredRun)
    assert run.problems == ()
    assert [result.image for result in run] == [line["image"] for line in ran.lines]
    assert run.summary() == "camcli-out: 2 images, 2 results, gradcam, tf_efficientnet_lite0"
    assert run._repr_html_().count("data:image/jpeg") == 4
    text = (Path(__file__).parent.parent.parent / "docs" / "python.md").read_text("utf-8")
    (example,) = [block for block in text.split("```") if "open_run(" in block]
    table = pytest.importorskip("pandas") and run.to_dataframe()
    lines = [(line, each) for line in ran.lines for each in line["explanations"]]
    assert len(table) == len(lines) == 4
    for row, (line, each) in zip(table.itertuples(), lines, strict=True):
        assert (row.path, row.layers) == (line["path"], line["layers"])
        assert (row.class_index, row.class_name) == (each["class_index"], each["class_name"])
        assert (row.predicted, row.targets) == (each["predicted"], each["targets"])
        assert row.boxes == each["boxes"]
        assert row.files == each["files"]
    capsys.readouterr()
    exec(example.removeprefix("python"), {})
    assert "class_name" in capsys.readouterr().out
