"""`--target` on the command line: repeated, of regressions, and of networks without classes."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from conftest import PHOTOS, Cli

CHELSEA = next(path for path in PHOTOS if path.stem == "chelsea")
NETWORKS = """
import torch
from torch import nn

def _make(outputs):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs)] if outputs else []
    return nn.Sequential(*layers, *end)

def value():
    return _make(1)

def three():
    return _make(3)

def other():
    network = _make(3)
    network[-1].weight.data *= 0.01
    network[-1].bias.data = torch.tensor([0.0, 0.0, 9.0])
    return network

def maps():
    return _make(0)
"""


@pytest.fixture
def home(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    (tmp_path / "asked.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "class 1"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(CHELSEA.read_bytes())
    return cli


def check_schema(name: str, lines: list[dict[str, object]]) -> None:
    schema = json.loads(files("camcli.io").joinpath("schemas", name).read_text())
    for line in lines:
        jsonschema.validate(line, schema)


def test_a_repeated_target_gives_each_class_once(home: Cli) -> None:
    asked = ("--model", "asked:other", "--size", "64", "-m", "gradcam,eigencam")
    targets = ("-t", "predicted", "-t", "folder", "-t", "class 2", "-t", "all")
    ran = home("explain", "class 1", *asked, *targets, "-o", "out", "--save", "overlay,array")
    assert len(ran.lines) == 2, ran.err
    check_schema("results.schema.json", ran.lines)
    for line in ran.lines:
        found = [(e["class_index"], e["targets"], e["predicted"]) for e in line["explanations"]]
        assert found == [
            (2, ["predicted", "class 2", "all"], True),
            (1, ["folder", "all"], False),
            (0, ["all"], False),
        ]
    settings = json.loads(Path("out/run.json").read_text())["settings"]
    assert settings["target"] == ["predicted", "folder", "class 2", "all"]
    again = home(
        "explain", "class 1", *asked, *targets, "-o", "out", "--save", "overlay,array", "--resume"
    )
    assert "2 done before" in again.err or "1 done before" in again.err


def test_a_single_target_is_written_as_it_was_before(home: Cli) -> None:
    """So that runs of older versions, which know one target only, can be resumed."""
    for number, options in enumerate(((), ("-t", "predicted"))):
        home(
            "explain",
            "class 1",
            "--model",
            "asked:three",
            "--size",
            "64",
            *options,
            "-o",
            str(number),
        )
        settings = json.loads(Path(f"{number}/run.json").read_text())["settings"]
        assert (settings["target"], settings["target_sha256"]) == ("predicted", None)


def test_a_regression_says_its_value(home: Cli) -> None:
    asked = ("--model", "asked:value", "--size", "64", "-m", "gradcam", "--layers", "3")
    ran = home("explain", CHELSEA, *asked, "-o", "asked")
    assert ran.status == 2
    assert "--head sigmoid" in ran.err
    assert "--head regression" in ran.err
    ran = home(
        "explain", CHELSEA, *asked, "--head", "regression", "-t", "high", "-t", "low", "-o", "out"
    )
    check_schema("results.schema.json", ran.lines)
    high, low = ran.lines[0]["explanations"]
    assert (high["direction"], low["direction"]) == ("high", "low")
    assert high["score"] == low["score"]
    assert high["files"]["overlay"] != low["files"]["overlay"]
    assert {Path("out", e["files"]["overlay"]).is_file() for e in (high, low)} == {True}


def test_a_network_without_classes_has_no_class_in_its_files(home: Cli) -> None:
    asked = ("--model", "asked:maps", "--size", "64", "--save", "overlay,boxes,array,grid")
    ran = home("explain", CHELSEA, *asked, "-m", "fem", "-o", "out")
    assert ran.status == 0, ran.err
    check_schema("results.schema.json", ran.lines)
    (found,) = ran.lines[0]["explanations"]
    assert (found["class_index"], found["class_name"], found["score"]) == (None, None, None)
    assert not Path("out/chelsea.fem.class-0.overlay.jpg").exists()
    assert {path.name.partition(".")[0] for path in Path("out").glob("chelsea*")} == {"chelsea"}
    assert "class" not in found["files"]["overlay"]
    with np.load(Path("out", found["files"]["array"])) as arrays:
        assert all("/" not in name for name in arrays)
        assert "fused" in arrays
    ran = home("explain", CHELSEA, *asked, "-m", "gradcam", "-o", "other")
    assert (ran.status, "--target like:REFERENCE.jpg" in ran.err) == (2, True)
    ran = home(
        "explain", CHELSEA, *asked, "-m", "gradcam", "-t", f"like:{PHOTOS[1]}", "-o", "other"
    )
    assert ran.status == 0, ran.err
    check_schema("results.schema.json", ran.lines)
    assert json.loads(Path("other/run.json").read_text())["settings"]["target_sha256"]


def test_compare_draws_each_target_once_for_every_model(home: Cli) -> None:
    asked = ("--models", "asked:three,asked:other", "--size", "64", "-m", "gradcam,fem")
    ran = home(
        "compare", "class 1", *asked, "-t", "predicted", "-t", "2", "-o", "out", "--format", "jsonl"
    )
    check_schema("compare.schema.json", ran.lines)
    classes = [[found["class_index"] for found in line["maps"]] for line in ran.lines]
    assert [row[2:] for row in classes] == [[2, 2]] * len(classes)  # `other` predicts class 2
    assert classes[-1][:2] == [2, 2]
    written = [line["file"] for line in ran.lines]
    assert len(set(written)) == len(written)
    assert all(Path("out", name).is_file() for name in written)


def test_many_classes_are_announced_with_the_files_they_write(
    home: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camcli.cli.loading.MANY_CLASSES", 2)
    asked = ("explain", "class 1", "--model", "asked:three", "--size", "64", "-t", "all")
    assert "3 maps of each image, and writes 3 files;" in home(*asked, "--save", "boxes,sheet").err
    assert "3 maps of each image; --target" in home(*asked, "--save", "sheet").err
