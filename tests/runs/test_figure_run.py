"""Figures: what a column means, which runs it needs, and which map lies in which cell."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import numpy as np
import pytest
from conftest import small
from PIL import Image
from small_figures import (
    CNN,
    PHOTO,
    SIDE,
    VIT,
    drawn_alone,
    images_of,
    pixels,
    plan_of,
    words,
)

from camcli.core.errors import LayerError, MethodError, UsageError
from camcli.io.sheet_layout import SheetStyle, fit_cell
from camcli.runs.figure_columns import ColumnWords, parse_cell_specs
from camcli.runs.figure_pages import iter_pages


def read(text: str, given: ColumnWords | None = None) -> list[dict[str, Any]]:
    """The fields of each column that are set."""
    names = ("image", "model", "layers", "part", "target", "fused", "drawing")
    found = []
    for spec in parse_cell_specs("--columns", [text], given or words()):
        fields = {name: getattr(spec, name) for name in names if getattr(spec, name)}
        found.append(fields | ({"method": spec.method.name} if spec.method else {}))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "image,fused": [{"image": True}, {"fused": True}],
        "stage1..3": [{"layers": f"stage{n}"} for n in (1, 2, 3)],
        "stage1-2,stage4..stage5": [{"layers": f"stage{n}"} for n in (1, 2, 4, 5)],
        "block 0..1,block-1": [{"layers": f"block {n}"} for n in (0, 1, -1)],
        "blocks.0..1,features.16": [{"layers": n} for n in ("blocks.0", "blocks.1", "features.16")],
        "layer:bn2": [{"layers": "bn2"}],
        "-2,-3..-1": [{"layers": "-2"}, {"layers": "-3..-1"}],
        "block 0..-1,stage -1": [{"layers": "block 0..-1"}, {"layers": "stage -1"}],
        "blocks.0..11.norm1": [{"layers": "blocks.0..11.norm1"}],
        "blocks.*.norm1": [{"layers": "blocks.*.norm1"}],
        "spotlight@blocks,fused@cutout": [
            {"layers": "blocks", "drawing": "spotlight"},
            {"fused": True, "drawing": "cutout"},
        ],
        "gradcam++, LayerCAM": [{"method": "gradcam++"}, {"method": "layercam"}],
        "tscam:part=attention": [{"method": "tscam:part=attention"}],
        "semantic@top:2": [{"part": "semantic", "target": "top:2"}],
        "predicted,class:espresso": [{"target": "predicted"}, {"target": "espresso"}],
        "class:540-vs-3": [{"target": "540-vs-3"}],
        "model:a.pth@gradcam": [{"model": "a.pth", "method": "gradcam"}],
        "attention": [{"method": "attention"}],
        "part:attention": [{"part": "attention"}],
    }.items(),
)
def test_columns_are_read(text: str, expected: list[dict[str, Any]]) -> None:
    assert read(text) == expected


def test_lists_stand_for_what_the_options_name() -> None:
    given = words("gradcam", "tscam", target="top:3", models=("a", "b"))
    assert read("methods", given) == [{"method": "gradcam"}, {"method": "tscam"}]
    assert read("models@methods", given) == [
        {"model": model, "method": method} for model in "ab" for method in ("gradcam", "tscam")
    ]
    assert read("classes", given) == [{"target": "top:3"}]
    assert read("parts", given) == [{"part": p} for p in ("attention", "semantic", "coupled")]


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "": "--columns is empty",
        "gradcm": "no column 'gradcm'; did you mean gradcam",
        "espresso": "write layer:, method:, part:, class: or model:",
        "all": "write class:all or layer:all",
        "top:0": "write top:5",
        "stage5..1": "the smaller number first",
        "gradcam@layercam": "names two things of one kind",
        "image@top:2": "names two things of one kind",
        "class:": "names no class",
        "part:head": "no such part",
        "models": "name them with --model",
        "stage1..9999": "stage1..9999",
    }.items(),
)
def test_wrong_columns_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_cell_specs("--columns", [text], words())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_attention_must_be_told_apart_where_tscam_is_the_method() -> None:
    with pytest.raises(UsageError, match="write part:attention or method:attention"):
        read("attention", words("tscam"))


def test_columns_are_read_without_torch() -> None:
    program = (
        "import sys; from camcli.runs.figure_columns import *;"
        "parse_cell_specs('--columns', ['image,stage1..5,top:3,gradcam'], ColumnWords());"
        "print(sorted({'torch', 'timm', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    ran = run_process([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_each_cell_is_the_map_of_its_column() -> None:
    model = small(*CNN)
    plan = plan_of(model, "image,stage2..4,fused,gradcam,layercam@class:3", words("layercam"))
    assert [c.head for c in plan.columns] == [
        *("image", "stage 2", "stage 3", "stage 4", "fused", "Grad-CAM", "LayerCAM"),
    ]
    (image,) = images_of(plan, [PHOTO])
    (row,) = image.rows
    cells = [group[0] for group in row.groups]
    assert [len(group) for group in row.groups] == [1] * 7
    spec = "stage2..4"
    names = [layer.name for layer in plan.runs[0].requests[0].layers]
    expected = [
        *(drawn_alone(model, "layercam", spec, name) for name in [*names, "fused"]),
        drawn_alone(model, "gradcam", "last", "fused"),
        drawn_alone(model, "layercam", "last", "fused", target="3"),
    ]
    for cell, picture in zip(cells[1:], expected, strict=True):
        assert (pixels(cell) == picture).all()
    with Image.open(PHOTO) as photo:
        assert (pixels(cells[0]) == np.asarray(photo.resize(fit_cell(photo.size, SIDE)))).all()
    assert image.problems == ()


def test_methods_of_one_target_share_a_run() -> None:
    plan = plan_of(small(*CNN), "gradcam,layercam,gradcam@stage2,predicted,fused,top:2")
    assert [len(run.requests) for run in plan.runs] == [3, 1]


def test_rows_and_columns_are_joined_and_a_column_of_its_own_stands_alone() -> None:
    model = small(*CNN)
    plan = plan_of(model, "image,stage3..4,cam", rows="gradcam,layercam")
    assert plan.row_heads == ("Grad-CAM", "LayerCAM")
    (image,) = images_of(plan, [PHOTO])
    first, second = image.rows
    assert [[cell is None for cell in group] for group in second.groups] == [
        *([True], [False], [False], [True]),
    ]
    assert not any(cell is None for group in first.groups for cell in group)
    name = plan.runs[0].requests[0].layers[0].name
    shown = drawn_alone(model, "gradcam", "stage3..4", name)
    assert (pixels(first.groups[1][0]) == shown).all()
    assert second.label == ("LayerCAM",)


def test_classes_are_columns_with_captions_and_the_predicted_is_framed() -> None:
    plan = plan_of(small(*CNN), "image,top:3,class:2")
    (image,) = images_of(plan, [PHOTO])
    (row,) = image.rows
    assert [len(group) for group in row.groups] == [1, 3, 1]
    framed = [cell.is_framed for group in row.groups for cell in group if cell]
    assert framed[:4] == [False, True, False, False]
    captions = [cell.caption for cell in row.groups[1] if cell]
    scores = [float(cell.score) for cell in row.groups[1] if cell]
    assert scores == sorted(scores, reverse=True)
    assert len(set(captions)) == 3
    assert row.label[0] == "rocket"


def test_classes_of_the_target_are_rows_where_no_column_names_classes() -> None:
    plan = plan_of(small(*CNN), "image,fused", words(target="top:2"))
    (image,) = images_of(plan, [PHOTO])
    assert len(image.rows) == 2
    assert image.rows[0].groups[0][0] is not None
    assert image.rows[1].groups[0][0] is None  # the photograph is not repeated
    assert image.rows[0].label[:2] != image.rows[1].label[:2]


def test_a_map_that_is_the_same_for_all_classes_is_drawn_once() -> None:
    plan = plan_of(small(*VIT), "rollout,coupled,part:attention", words("tscam", target="top:2"))
    (image,) = images_of(plan, [PHOTO])
    assert [[cell is None for cell in group] for group in image.rows[1].groups] == [
        *([True], [False], [True]),
    ]


def test_blocks_and_parts_of_tscam() -> None:
    model = small(*VIT)
    plan = plan_of(model, "blocks,block 1,parts,rollout", words("tscam"))
    depth = len(model.network.blocks)  # type: ignore[arg-type]
    heads = [column.head for column in plan.columns]
    assert heads == [
        *(f"block {n}" for n in range(depth)),
        *("block 1", "attention", "semantic", "coupled", "Attention rollout"),
    ]
    (image,) = images_of(plan, [PHOTO])
    cells = [group[0] for group in image.rows[0].groups]
    assert (pixels(cells[1]) == pixels(cells[depth])).all()
    with pytest.raises(LayerError, match=f"blocks 0..{depth - 1}"):
        plan_of(model, "block 99", words("tscam"))
    with pytest.raises(LayerError, match="no map for a single layer"):
        plan_of(model, "block 1@rise")


def test_cells_that_no_run_can_give_are_refused() -> None:
    with pytest.raises(UsageError, match="name at least one map"):
        plan_of(small(*CNN), "image")
    with pytest.raises(MethodError):
        plan_of(small(*CNN), "rollout")
    with pytest.raises(LayerError):
        plan_of(small(*CNN), "stage9")


def test_a_broken_image_and_a_blank_map_are_drawn_and_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    plan = plan_of(small(*VIT), "image,gradcam@layer:blocks.5,fem")
    broken, whole = images_of(plan, [tmp_path / "broken.jpg", PHOTO])
    assert len(broken.problems) == 1
    assert broken.rows[0].label[:2] == ("broken", "failed")
    assert [len(group) for group in broken.rows[0].groups] == [1, 1, 1]
    assert whole.problems
    assert all("gradient is zero" in problem for problem in whole.problems)
    blank = whole.rows[0].groups[1][0]
    assert blank is not None
    assert blank.caption == ("no map: the gradient is zero here", "")


def test_only_small_pictures_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (3000, 2000), (9, 99, 200)).save(path)
    (image,) = images_of(plan_of(small(*CNN), "image,fused"), [path])
    assert [cell.image.size for group in image.rows[0].groups for cell in group if cell] == [
        (60, 40),
        (60, 40),
    ]


def test_pages_hold_the_rows_that_fit() -> None:
    plan = plan_of(small(*CNN), "image,fused")
    rows = [row for image in images_of(plan, [PHOTO]) for row in image.rows] * 7
    style = SheetStyle(width=3, dpi=72, max_height=3)
    pages = list(iter_pages(plan.name_columns(["photo", "map"]), rows, style))
    assert all(page.get_figheight() <= 3 for page in pages)
    fitted = [sum(text.get_text() == rows[0].label[1] for text in page.texts) for page in pages]
    assert sum(fitted) == 7
    assert len(pages) > 1
    assert all("photo" in [text.get_text() for text in page.texts] for page in pages)
