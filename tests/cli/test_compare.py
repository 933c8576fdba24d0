"""`camcli compare`: what is written, what is said, and what is refused."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from conftest import SAMPLES, Cli
from PIL import Image
from scipy.stats import spearmanr

from camcli.methods.registry import METHODS
from camcli.runs.comparison import RANKING_GRID, compute_spearman

SCHEMA = json.loads((files("camcli") / "io/schemas/compare.schema.json").read_text())
FEW = ["--method", "gradcam,layercam,eigencam", "--size", "96"]


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "compare.jsonl").read_text().splitlines()]


def test_a_picture_and_a_line_an_image(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli("compare", picture, SAMPLES / "coffee.jpg", *FEW, "--output", "o")
    assert ran.status == 0, ran.err
    found = lines(tmp_path / "o")
    assert found == ran.lines
    for line in found:
        jsonschema.validate(line, SCHEMA)
        assert [shown["method"] for shown in line["maps"]] == ["gradcam", "layercam", "eigencam"]
        alike = np.array(line["spearman"])
        assert alike.shape == (3, 3)
        assert np.allclose(np.diag(alike), 1)
        assert np.allclose(alike, alike.T)
        assert all(shown["milliseconds"] > 0 for shown in line["maps"])
        with Image.open(tmp_path / "o" / line["file"]) as sheet:
            assert sheet.width > 4 * 260
        with Image.open(tmp_path / "o" / line["correlation_file"]) as matrix:
            assert matrix.width > 2 * 46
    assert {line["image"] for line in found} == {"photo.png", "coffee.jpg"}


def test_its_maps_are_those_of_explain(cli: Cli, picture: Path, tmp_path: Path) -> None:
    cli("compare", picture, *FEW, "--output", "o")
    cli("explain", picture, *FEW, "--output", "e", "--save", "array")
    explained = {
        line["method"]: line["explanations"][0]
        for line in map(json.loads, (tmp_path / "e/results.jsonl").read_text().splitlines())
    }
    (line,) = lines(tmp_path / "o")
    for shown in line["maps"]:
        same = explained[shown["method"]]
        assert shown["boxes"] == same["boxes"]
        assert shown["class_index"] == same["class_index"]
        assert shown["score"] == same["score"]


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(0)
    one, two = generator.random((2, *RANKING_GRID), dtype=np.float32)
    half = np.where(one > 0.5, one, 0).astype(np.float32)  # many ties
    found = compute_spearman([one, two, half, None, np.zeros_like(one)])
    for n, a in enumerate((one, two, half)):
        for m, b in enumerate((one, two, half)):
            assert found[n, m] == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    assert np.isnan(found[3:]).all()
    assert np.isnan(found[:, 3:]).all()


def test_pictures_take_the_options_of_explain(cli: Cli, picture: Path, tmp_path: Path) -> None:
    plain = (*("compare", picture, "--method", "gradcam", "--image-format", "png"), "--cell", "40")
    looks = {
        "plain": (),
        "jet": ("--colormap", "jet"),
        "constant": ("--blend", "constant"),
        "weak": ("--alpha", "0.1"),
        "boxes": ("--boxes", "largest"),
        "contour": ("--contour",),
    }
    sheets = {}
    for name, options in looks.items():
        assert cli(*plain, *options, "--output", name).status == 0
        (line,) = lines(tmp_path / name)
        assert "correlation_file" not in line  # of a single map
        assert line["file"].endswith(".compare.png")
        with Image.open(tmp_path / name / line["file"]) as sheet:
            sheets[name] = np.asarray(sheet)
    assert len({sheet.tobytes() for sheet in sheets.values()}) == len(looks)
    assert "did you mean jet" in cli(*plain, "--colormap", "jett", "--output", "x").err
    assert "no such colour" in cli(*plain, "--box-color", "reddish", "--output", "x").err


def test_layers_are_rows(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli(
        *(
            "compare",
            picture,
            "--method",
            "gradcam,cam",
            "--layers",
            "stage4",
            "--layers",
            "stage5",
        ),
        *("--size", "96", "--output", "o"),
    )
    assert ran.status == 0, ran.err
    (line,) = lines(tmp_path / "o")
    places = [(shown["row"], shown["method"]) for shown in line["maps"]]
    # CAM reads a layer of its own: once.
    assert places == [("stage4", "gradcam"), ("", "cam"), ("stage5", "gradcam")]
    assert [shown["layers"] for shown in line["maps"]] == [["blocks.4"], ["bn2"], ["blocks.6"]]


def test_models_are_rows(cli: Cli, picture: Path, tmp_path: Path) -> None:
    models = "tf_efficientnet_lite0,tscam_vit_lite0"
    ran = cli("compare", picture, "--models", models, "--method", "gradcam", "--output", "o")
    assert ran.status == 0, ran.err
    (line,) = lines(tmp_path / "o")
    assert [shown["model"] for shown in line["maps"]] == models.split(",")
    assert [shown["row"] for shown in line["maps"]] == models.split(",")


def test_all_cheap_is_the_default_and_leaves_out_what_cannot_be(
    cli: Cli, picture: Path, tmp_path: Path
) -> None:
    ran = cli("compare", picture, "--size", "128", "--output", "o", "--format", "table")
    assert ran.status == 0, ran.err
    (line,) = lines(tmp_path / "o")
    shown = {m["method"] for m in line["maps"]}
    cheap = {name for name, m in METHODS.items() if not any("N " in cost for cost in m.costs)}
    left = ran.err.partition("the model does not support these methods: ")[2].splitlines()[0]
    assert shown | set(left.split(", ")) == cheap
    assert "rollout" in left
    assert {"gradcam", "guidedbackprop", "dff"} <= shown
    assert ran.out.startswith("method")


def test_a_target_each_is_a_picture_each(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli("compare", picture, *FEW, "--target", "top:2", "--output", "o")
    assert ran.status == 0, ran.err
    assert len({line["file"] for line in lines(tmp_path / "o")}) == 2


def test_an_image_that_cannot_be_read_is_told(cli: Cli, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    ran = cli("compare", tmp_path / "bad.jpg", picture, *FEW, "--output", "o")
    assert ran.status == 1
    failed, ok = lines(tmp_path / "o")
    jsonschema.validate(failed, SCHEMA)
    assert (failed["status"], ok["status"]) == ("failed", "ok")
    assert "bad.jpg" in ran.err


def test_blank_maps_have_no_correlation(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli(
        *("compare", picture, "--model", "vit_lite0", "--method", "gradcam,eigencam"),
        *("--layers", "norm", "--output", "o"),
    )
    assert ran.status == 1
    (line,) = lines(tmp_path / "o")
    jsonschema.validate(line, SCHEMA)
    assert line["maps"][0]["map_status"] == "zero_gradient"
    assert line["spearman"][0] == [None, None]
    assert "no map" in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "rollout", "--model", "tf_efficientnet_lite0"], "rollout needs attention"),
        (["--method", "all", "--method", "gradcam"], "cannot be combined"),
        (["--method", "gradcan"], "did you mean gradcam"),
        (["--layers", "stage9"], "no stage9"),
        (["--target", "dog-vs-dog"], "no class 'dog'"),
        (["--smooth", "blur"], "--smooth blur"),
        (["--model", "a", "--models", "b"], "cannot be combined"),
        (["--smooth", "augment", "--method", "dff"], "different concepts in each view"),
        (["--fit", "tencrop", "--method", "dff"], "omit --smooth and --fit tencrop"),
        (["--fusion", "none"], "write --layers each:stage1..5"),
        (["--models", ","], "--models is empty"),
        (["--method", "occlusion:window=8:stride=9"], "leave gaps"),
    ],
)
def test_what_cannot_be_is_one_line(
    cli: Cli, picture: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    ran = cli("compare", picture, *arguments, "--output", "o")
    assert ran.status == 2
    assert says in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_what_came_to_nothing_is_no_run(cli: Cli, picture: Path, tmp_path: Path) -> None:
    wrong = ("compare", picture, "--method", "occlusion:window=8:stride=9", "--output", "o")
    assert cli(*wrong).status == 2
    assert not (tmp_path / "o/compare.jsonl").exists()
    assert cli("compare", picture, *FEW, "--output", "o").status == 0


def test_a_run_is_not_written_over(cli: Cli, picture: Path) -> None:
    assert cli("compare", picture, *FEW, "--output", "o").status == 0
    assert "already holds a run" in cli("compare", picture, *FEW, "--output", "o").err
    assert cli("compare", picture, *FEW, "--output", "o", "--overwrite").status == 0


# --- explain, along the same axes


def test_a_contrast_names_both_classes(cli: Cli, picture: Path, tmp_path: Path) -> None:
    schema = json.loads((files("camcli") / "io/schemas/results.schema.json").read_text())
    ran = cli("explain", picture, "--target", "tabby-vs-lynx", "--size", "96", "--output", "o")
    assert ran.status == 0, ran.err
    (line,) = ran.lines
    jsonschema.validate(line, schema)
    (found,) = line["explanations"]
    assert found["class_name"] == "tabby"
    assert [rival["class_name"] for rival in found["against"]] == ["lynx"]
    assert found["files"]["overlay"] == "photo.tabby-vs-lynx.gradcam.overlay.jpg"
    finer = cli("explain", picture, "--target", "finer:4", "--size", "96", "--output", "f")
    (found,) = finer.lines[0]["explanations"]
    jsonschema.validate(finer.lines[0], schema)
    assert len(found["against"]) == 4
    assert found["files"]["overlay"].endswith("-vs-4-nearest.gradcam.overlay.jpg")


def test_concepts_have_a_picture_and_no_boxes(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli(
        *("explain", picture, "--method", "dff", "--set", "concepts=3", "--size", "96"),
        *("--save", "overlay,heatmap,grid,boxes,array", "--output", "o"),
    )
    assert ran.status == 0, ran.err
    (found,) = ran.lines[0]["explanations"]
    assert found["boxes"] == []
    with np.load(tmp_path / "o" / found["files"]["array"]) as arrays:
        names = {key.partition("/")[2] for key in arrays}
    assert {"concept 1", "concept 2", "concept 3", "fused"} <= names
    for kind in ("overlay", "heatmap", "grid"):
        with Image.open(tmp_path / "o" / found["files"][kind]) as opened:
            opened.load()


def test_seed_reaches_the_methods_that_draw(cli: Cli, picture: Path, tmp_path: Path) -> None:
    def raw(seed: int) -> Any:
        out = f"o{seed}"
        ran = cli(
            *("explain", picture, "--method", "randomcam", "--seed", seed, "--size", "96"),
            *("--save", "array", "--output", out, "--overwrite"),
        )
        file = ran.lines[0]["explanations"][0]["files"]["array"]
        with np.load(tmp_path / out / file) as arrays:
            return next(arrays[key] for key in arrays if key.endswith("fused"))

    assert np.array_equal(raw(1), raw(1))
    assert not np.array_equal(raw(1), raw(2))


def test_scm_is_tscam(cli: Cli, picture: Path) -> None:
    ran = cli("explain", picture, "--method", "scm")
    assert ran.status == 2
    assert "--method tscam" in ran.err


# --- options


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("rise:masks=0", "from 1 to 100000"),
        ("rise:keep=1.5", "from 0 to 1"),
        ("rise:keep=NaN", "from 0 to 1"),
        ("occlusion:stride=0", "from 1"),
        ("occlusion:window=-3", "from 1"),
        ("scorecam:channels=-1", "from 0"),
        ("scorecam:channels=2.5", "write a value like 0"),
        ("scorecam:weights=best", "choose from probability, softmax"),
        ("smoothgrad:noise=-1", "from 0"),
        ("smoothgrad:noise=Infinity", "from 0"),
        ("rollout:discard=2", "from 0 to 1"),
        ("integratedgradients:absolute=maybe", "write a value like true"),
        ("dff:concepts=11", "from 1 to 10"),
        ("attention:block=99", "write last, mean or 0..3"),
        ("randomcam:seed=-1", "from 0"),
        ("kpcacam --layers stage1", "choose a deeper layer"),
    ],
)
def test_options_that_cannot_be(cli: Cli, picture: Path, setting: str, says: str) -> None:
    ran = cli("explain", picture, "--method", *setting.split())
    assert ran.status == 2
    assert says in ran.err
    assert len(ran.err.strip().splitlines()) == 1


def test_options_may_be_numbers_or_names(cli: Cli, picture: Path) -> None:
    ran = cli("explain", picture, "--method", "attention:block=2", "--save", "")
    assert ran.status == 0, ran.err
    ran = cli(
        "explain", picture, "--method", "rise:keep=0:masks=2", "--output", "o", "--size", "64"
    )
    assert ran.status == 1
    assert "the map is the same everywhere" in ran.err
