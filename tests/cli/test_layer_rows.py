"""Rows of results for several layers and blocks, and methods that are left out."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import timm
import torch
from conftest import Cli, lively, small

from camcli.engine.chosen_layers import find_chosen_layers
from camcli.models.introspection.selectors import create_layer_specs, find_block_layer

SCHEMA = json.loads((files("camcli") / "io/schemas/run.schema.json").read_text())


@pytest.fixture
def vit(tmp_path: Path) -> tuple[object, ...]:
    """The options for a small transformer of six blocks."""
    path = tmp_path / "vit.pth"
    torch.save(lively(timm.create_model("test_vit", num_classes=4)).state_dict(), path)
    return ("--model", "test_vit", "--checkpoint", path)


@pytest.fixture
def cnn(tmp_path: Path) -> tuple[object, ...]:
    path = tmp_path / "cnn.pth"
    torch.save(lively(timm.create_model("test_resnet", num_classes=4)).state_dict(), path)
    return ("--model", "test_resnet", "--checkpoint", path)


def read_run(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "run.json").read_text())
    jsonschema.validate(document, SCHEMA)
    return document


def arrays_of(output: Path) -> list[dict[str, Any]]:
    return [dict(np.load(path)) for path in sorted(output.glob("*.npz"))]


def test_each_repeated_option_is_a_row_as_it_is_alone(
    cli: Cli, vit: tuple[object, ...], picture: Path, tmp_path: Path
) -> None:
    command = (
        "explain",
        picture,
        *vit,
        "--method",
        "gradcam-elementwise,rollout",
        "--save",
        "array",
    )
    ran = cli(*command, "--layers", "blocks.1..3", "--block", "0", "--block", "4", "--output", "o")
    assert ran.status == 0, ran.err
    assert [(line["method"], line["layers"]) for line in ran.lines] == [
        ("gradcam-elementwise", ["blocks.1", "blocks.2", "blocks.3"]),
        ("gradcam-elementwise", ["blocks.0.norm1"]),
        ("gradcam-elementwise", ["blocks.4.norm1"]),
        ("rollout", ["blocks.1", "blocks.2", "blocks.3"]),
        ("rollout", ["blocks.0"]),
        ("rollout", ["blocks.4"]),
    ]
    names = {Path(line["explanations"][0]["files"]["array"]).name for line in ran.lines}
    assert len(names) == 6
    assert {name for name in names if "rollout" in name} == {
        f"photo.rollout.blocks.{blocks}.npz" for blocks in ("1..3", "0", "4")
    }
    for number, row in enumerate((("--layers", "blocks.1..3"), ("--block", "0"), ("--block", 4))):
        alone = cli(*command, *row, "--output", f"alone{number}")
        for line, same in zip(alone.lines, ran.lines[number::3], strict=True):
            found, expected = (
                np.load(tmp_path / folder / of["explanations"][0]["files"]["array"])
                for folder, of in ((f"alone{number}", line), ("o", same))
            )
            assert found.files == expected.files
            for key in found.files:
                assert np.allclose(found[key], expected[key], rtol=1e-4, atol=1e-7)


def test_the_table_tells_the_layers_where_methods_repeat(
    cli: Cli, cnn: tuple[object, ...], picture: Path
) -> None:
    command = ("explain", picture, *cnn, "--method", "layercam", "--format", "table")
    one = cli(*command, "--layers", "stage2..5", "--overwrite")
    assert "stage" not in one.out
    ran = cli(*command, "--layers", "each:stage2..3", "--layers", "stage2..5", "--overwrite")
    found = [line.split()[1:3] for line in ran.out.splitlines()]
    assert found == [["layercam", label] for label in ("layer1", "layer2", "stage2..5")]


def test_each_is_what_no_fusion_is(
    cli: Cli, cnn: tuple[object, ...], picture: Path, tmp_path: Path
) -> None:
    command = ("explain", picture, *cnn, "--method", "layercam", "--save", "array")
    ran = cli(*command, "--layers", "each:stage3..5", "--output", "each")
    assert [line["layers"] for line in ran.lines] == [["layer2"], ["layer3"], ["layer4"]]
    cli(*command, "--layers", "stage3..5", "--fusion", "none", "--output", "none")
    for found, expected in zip(
        arrays_of(tmp_path / "each"), arrays_of(tmp_path / "none"), strict=True
    ):
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[key], expected[key]) for key in found)


def test_settings_are_one_value_or_a_list(
    cli: Cli, vit: tuple[object, ...], picture: Path, tmp_path: Path
) -> None:
    """One value is written as before options could be repeated, so that old runs resume."""
    command = (
        "explain",
        picture,
        *vit,
        "--method",
        "gradcam-elementwise",
        "--save",
        "boxes",
        "--output",
        "o",
    )
    cases: list[tuple[tuple[str, ...], object, object]] = [
        ((), None, None),
        (("--layers", "blocks.1"), "blocks.1", None),
        (("--block", "-1"), None, -1),
        (("--block", "0..2"), None, "0..2"),
        (("--layers", "blocks.1", "--layers", "blocks.2"), ["blocks.1", "blocks.2"], None),
        (("--block", "1", "--block", "0,2"), None, [1, "0,2"]),
    ]
    for options, layers, block in cases:
        assert cli(*command, *options, "--overwrite").status == 0
        settings = read_run(tmp_path / "o")["settings"]
        assert (settings["layers"], settings["block"]) == (layers, block)
        assert "chosen_blocks" not in settings
    again = cli(*command, *cases[-1][0], "--resume")
    assert (again.status, again.out) == (0, "")
    assert "1 done before" in again.err
    other = cli(*command, "--block", "1", "--block", "3", "--resume")
    assert other.status == 2
    assert 'block was [1, "0,2"], is [1, 3]' in other.err


def test_a_run_that_ignored_the_choice_of_blocks_is_not_gone_on_with(
    cli: Cli, vit: tuple[object, ...], picture: Path, tmp_path: Path
) -> None:
    command = ("explain", picture, *vit, "--method", "gradcam-elementwise,rollout", "--block", "2")
    command = (*command, "--save", "boxes", "--output", "o")
    assert cli(*command).status == 0
    document = read_run(tmp_path / "o")
    assert document["settings"].pop("chosen_blocks") == [["rollout", ["blocks.2"]]]
    (tmp_path / "o" / "run.json").write_text(json.dumps(document))
    assert "chosen_blocks was null" in cli(*command, "--resume").err


def test_a_method_that_does_not_suit_is_named_and_the_others_run(
    cli: Cli, vit: tuple[object, ...], picture: Path, tmp_path: Path
) -> None:
    command = ("explain", picture, *vit, "--save", "boxes", "--output", "o")
    ran = cli(*command, "--method", "fullgrad,gradcam")
    assert ran.status == 1
    assert "camcli: left out: fullgrad needs a network of convolutions" in ran.err
    assert [line["method"] for line in ran.lines] == ["gradcam"]
    document = read_run(tmp_path / "o")
    assert list(document["left_out"]) == ["fullgrad"]
    assert document["state"] == "done"
    assert cli(*command, "--method", "fullgrad,gradcam", "--resume").status == 1
    alone = cli(*command, "--method", "fullgrad", "--overwrite")
    assert alone.status == 2
    assert len(alone.err.splitlines()) == 1


def test_compare_leaves_out_a_named_method(
    cli: Cli, vit: tuple[object, ...], picture: Path
) -> None:
    ran = cli("compare", picture, *vit, "--method", "fullgrad,gradcam,rollout", "--output", "o")
    assert ran.status == 1
    assert ran.err.count("fullgrad") == 1
    (line,) = ran.lines
    assert [shown["method"] for shown in line["maps"]] == ["gradcam", "rollout"]
    alone = cli("compare", picture, *vit, "--method", "fullgrad", "--output", "p")
    assert alone.status == 2


def test_compare_has_a_row_for_each_block(cli: Cli, vit: tuple[object, ...], picture: Path) -> None:
    options = ("--method", "gradcam,rollout,saliency", "--block", "each:0..1", "--layers", "last")
    ran = cli("compare", picture, *vit, *options, "--output", "o")
    assert ran.status == 0, ran.err
    found = [(s["row"], s["method"], s["layers"]) for s in ran.lines[0]["maps"]]
    assert found == [
        ("last", "gradcam", ["blocks.5.norm1"]),
        ("last", "rollout", ["blocks.5"]),
        ("", "saliency", []),
        ("block 0", "gradcam", ["blocks.0.norm1"]),
        ("block 0", "rollout", ["blocks.0"]),
        ("block 1", "gradcam", ["blocks.1.norm1"]),
        ("block 1", "rollout", ["blocks.1"]),
    ]


def test_a_block_without_a_model_is_one_of_the_built_in_transformer(
    cli: Cli, picture: Path
) -> None:
    ran = cli("explain", picture, "--method", "gradcam", "--block", "3", "--save", "boxes")
    assert ran.status == 0, ran.err
    assert (ran.lines[0]["model"], ran.lines[0]["layers"]) == ("vit_lite0", ["blocks.3.norm1"])
    ran = cli("explain", picture, "--method", "tscam", "--block", "2..3", "--output", "t")
    assert ran.lines[0]["model"] == "tscam_vit_lite0"
    assert ran.lines[0]["layers"] == ["blocks.2", "blocks.3"]


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "swin_tiny_patch4_window7_224"])
def test_the_option_of_a_row_selects_exactly_that_layer(cli: Cli, name: str) -> None:
    ran = cli("layers", name, "--no-weights", "--all", "--format", "jsonl")
    model = small(name, 224, 224) if name.startswith("swin") else small(name)
    assert len(ran.lines) == len(model.layers)
    for row in ran.lines:
        option, value = row["option"].split(" ")
        given = (value, None) if option == "--layers" else (None, int(value))
        (spec,) = create_layer_specs(*given)
        assert [layer.name for layer in find_chosen_layers(model, spec, find_block_layer)] == [
            row["layer"]
        ]


def test_the_table_and_the_tree_say_that_a_block_is_the_input_of_its_attention(cli: Cli) -> None:
    table = cli("layers", "test_vit", "--no-weights").out.splitlines()
    assert table[0].split()[:2] == ["layer", "option"]
    rows = {line.split()[0]: line.split()[1:3] for line in table[1:]}
    assert rows["blocks.5.norm1"] == ["--block", "5"]
    assert rows["blocks.5"] == ["--layers", "blocks.5"]
    assert len(rows) == 12
    tree = cli("layers", "test_vit", "--no-weights", "--tree").out.splitlines()
    (norm,) = [line for line in tree if line.endswith("--block 5  default")]
    assert norm.split()[0] == "norm1"
    assert sum("--layers blocks." in line for line in tree) == 6
