"""Figures: how cells are drawn, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import small
from small_figures import (
    ALONE,
    CNN,
    PHOTO,
    VIT,
    drawn_alone,
    images_of,
    pixels,
    plan_of,
    words,
)

from camcli.core.errors import UsageError
from camcli.engine.plan import PlanOptions
from camcli.engine.targets import parse_target
from camcli.runs.figure_columns import parse_cell_specs
from camcli.runs.figure_pages import has_color_bar
from camcli.runs.figure_plan import FigureSetup, create_figure_plan
from camcli.runs.run_config import RunConfig


def test_pixel_level_maps_are_grey_and_alone() -> None:
    model = small(*CNN)
    (image,) = images_of(plan_of(model, "saliency,gradcam"), [PHOTO])
    saliency, gradcam = (group[0] for group in image.rows[0].groups)
    assert (pixels(saliency) == drawn_alone(model, "saliency", None, "fused")).all()
    assert (np.ptp(pixels(saliency), axis=2) == 0).all()
    assert [cell and cell.colormap for cell in (saliency, gradcam)] == ["gray", "turbo"]


def test_one_bar_is_for_maps_with_one_look() -> None:
    model = small(*CNN)
    plans = {columns: plan_of(model, columns) for columns in ("cam", "saliency", "cam,saliency")}
    assert [has_color_bar(plan, None) for plan in plans.values()] == [True, True, False]
    assert has_color_bar(plans["cam,saliency"], "jet")
    assert not has_color_bar(plan_of(model, "cam@spotlight"), None)


def test_a_spotlight_is_the_image_times_the_map() -> None:
    model = small(*CNN)
    plan = plan_of(model, "image,gradcam@stage4@spotlight,gradcam@stage4")
    assert plan.columns[1].head == "Grad-CAM · stage 4 · spotlight"
    (image,) = images_of(plan, [PHOTO], colormap="gray", blend="none")
    photo, lit, grey = (pixels(group[0]).astype(float) for group in image.rows[0].groups)
    assert np.abs(lit - photo * grey / 255).max() <= 1
    spotlight = image.rows[0].groups[1][0]
    assert spotlight is not None
    assert spotlight.colormap is None


def test_a_cutout_is_the_image_inside_the_region_of_its_map() -> None:
    model = small(*CNN)
    (image,) = images_of(plan_of(model, "image,cutout,layercam@stage2..3@cutout"), [PHOTO])
    photo, *cut = (pixels(group[0]) for group in image.rows[0].groups)
    assert len(cut) == 3
    for picture in cut:
        kept = (picture == photo).all(axis=2)
        assert 0 < kept.mean() < 1
        darker = picture.mean(axis=2) < 0.5 * photo.mean(axis=2)
        assert (kept | darker).mean() > 0.5


def test_each_map_has_a_box_of_its_own() -> None:
    model = small(*CNN)
    plan = plan_of(model, "layercam@stage2,gradcam", words())
    (image,) = images_of(plan, [PHOTO], with_boxes=True)
    (bare,) = images_of(plan, [PHOTO])
    for with_box, without in zip(image.rows[0].groups, bare.rows[0].groups, strict=True):
        changed = (pixels(with_box[0]) != pixels(without[0])).any(axis=2)
        assert changed.any()
        assert changed.mean() < 0.5


@pytest.mark.parametrize("method", ["rollout", "legrad", "attention"])
def test_one_block_is_the_map_of_the_option_block(method: str) -> None:
    model = small(*VIT)
    plan = plan_of(model, f"{method}@blocks.0..1,{method}@block -1,{method}@fused,{method}")
    depth = len(model.network.blocks)  # type: ignore[arg-type]
    cells = [group[0] for group in images_of(plan, [PHOTO])[0].rows[0].groups]
    specs = ["block 0", "block 1", f"block {depth - 1}", f"block 0,block 1,block {depth - 1}", None]
    for cell, spec in zip(cells, specs, strict=True):
        alone = drawn_alone(model, method, spec, "fused")
        # Blocks that a run does not read use another kernel, which rounds differently.
        assert np.abs(pixels(cell).astype(int) - alone).max() <= 2, spec


def test_all_blocks_of_attention_are_another_map_than_its_own() -> None:
    model = small(*VIT)
    plan = plan_of(model, "attention@blocks,attention@fused,method:attention")
    cells = [group[0] for group in images_of(plan, [PHOTO])[0].rows[0].groups]
    assert (pixels(cells[-2]) == drawn_alone(model, "attention", "block 0..-1", "fused")).all()
    assert (pixels(cells[-1]) == drawn_alone(model, "attention", None, "fused")).all()
    assert (pixels(cells[-1]) != pixels(cells[-2])).any()


def test_layers_of_the_options_are_for_the_methods_that_take_them() -> None:
    model = small(*CNN)
    setup = FigureSetup(
        {None: model},
        lambda network, targets: RunConfig(network, (), parse_target(targets)(network.labels)),
        PlanOptions(layer_spec="stage2"),
        has_layer_methods=True,
    )
    plan = create_figure_plan(ALONE, parse_cell_specs("", ["gradcam,saliency"], words()), setup)
    gradcam, saliency = plan.runs[0].requests
    assert [layer.stage for layer in gradcam.layers] == [2]
    assert saliency.layers == ()


def test_a_method_that_does_not_suit_is_left_out() -> None:
    plan = plan_of(small(*CNN), "image,rollout,gradcam")
    assert list(plan.left_out) == ["rollout"]
    assert [column.head for column in plan.name_columns([]).columns] == ["image", "Grad-CAM"]
    named = plan.name_columns(["a", "b", "c"])
    assert [column.head for column in named.columns] == ["a", "c"]
    with pytest.raises(UsageError, match="2 words for 3 columns"):
        plan.name_columns(["a", "b"])


def test_a_cell_that_does_not_suit_is_crossed_out_where_others_of_its_column_suit() -> None:
    plan = plan_of(small(*CNN), "fused", rows="gradcam,rollout").name_columns([])
    (image,) = images_of(plan, [PHOTO])
    first, second = (row.groups[0][0] for row in image.rows)
    assert first is not None
    assert second is not None
    assert first.colormap == "turbo"
    assert second.colormap is None
    assert (pixels(first) != pixels(second)).any()
