"""`camcli evaluate faithfulness`, from the command line to the files it leaves."""

from __future__ import annotations

import csv
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from conftest import SAMPLES, Cli
from PIL import Image

import camcli
from camcli.evaluation.faithfulness.evidence_lines import evidence_from_json
from camcli.evaluation.faithfulness.faithfulness_metrics import METRICS

SCHEMA = json.loads((files("camcli") / "io/schemas/faithfulness.schema.json").read_text())
QUICK = ("--size", "64", "--steps", "4", "--cells", "2", "--resamples", "50")


def run(cli: Cli, *arguments: Any) -> Any:
    return cli("evaluate", "faithfulness", *arguments, *QUICK)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea.jpg", "coffee.jpg"):
        (folder / name).symlink_to(SAMPLES / name)
    return folder


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]


def test_a_table_a_document_and_pictures(cli: Cli, photos: Path, tmp_path: Path) -> None:
    ran = run(cli, photos, "--method", "gradcam,eigencam", "--metrics", "all", "--sanity",
              "cascade,independent,classes")  # fmt: skip
    assert ran.status == 0, ran.err
    out = tmp_path / "camcli-faith"
    document = json.loads((out / "faithfulness.json").read_text())
    jsonschema.validate(document, SCHEMA)
    methods = [row["method"] for row in document["rows"]]
    assert methods == [
        *("gradcam", "eigencam", "center", "random", "sobel", "randomcam", "reversed")
    ]
    assert [line["method"] for line in ran.lines] == methods
    assert document["complete"]
    first, reversed_row = document["rows"][0]["metrics"], document["rows"][-1]["metrics"]
    assert reversed_row["road"]["value"] == pytest.approx(-first["road"]["value"], abs=1e-5)
    assert set(first) == {metric.name for metric in METRICS}
    for name in ("curves.png", "agreement.png", "sanity.png", "examples.jpg"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 200
    sanity = {row["method"]: row for row in document["sanity"]["rows"]}
    assert "no classes" in sanity["eigencam"]["verdict"]
    assert sanity["eigencam"]["cascade"]["classifier"]["spearman"] == pytest.approx(1)
    assert [check["spearman"] for check in sanity["eigencam"]["classes"]] == pytest.approx([1] * 4)
    rows = list(csv.DictReader(io.StringIO((out / "faithfulness.csv").read_text())))
    assert {row["metric"] for row in rows if row["method"] == "gradcam"} == set(first)
    assert "2 images are few" in ran.err


def test_every_metric_follows_from_images_jsonl(cli: Cli, photos: Path, tmp_path: Path) -> None:
    ran = run(cli, photos, "--method", "gradcam", "--metrics", "all", "--output", tmp_path / "o")
    assert ran.status == 0, ran.err
    document = json.loads((tmp_path / "o" / "faithfulness.json").read_text())
    lines = read_lines(tmp_path / "o")
    images = [
        evidence_from_json([line for line in lines if line["image"] == name])
        for name in ("chelsea.jpg", "coffee.jpg")
    ]
    for metric in METRICS:
        values = [metric.compute(image, image.rows[0]) for image in images]
        found = document["rows"][0]["metrics"][metric.name]["value"]
        assert found == pytest.approx(np.mean([v for v in values if v is not None]), abs=1e-5)


def test_resume_scores_only_what_is_missing(cli: Cli, photos: Path, tmp_path: Path) -> None:
    arguments = (photos, "--method", "gradcam", "--metrics", "road", "--output", tmp_path / "o")
    assert run(cli, *arguments).status == 0
    log = tmp_path / "o" / "images.jsonl"
    whole, document = log.read_bytes(), (tmp_path / "o" / "faithfulness.json").read_text()
    refused = run(cli, *arguments)
    assert refused.status == 2
    lines = whole.splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) // 2 + 1]) + b'{"torn')  # one image and a half
    ran = run(cli, *arguments, "--resume")
    assert ran.status == 0, ran.err
    assert log.read_bytes() == whole
    assert (tmp_path / "o" / "faithfulness.json").read_text() == document
    other = run(cli, *arguments[:-4], "--metrics", "sds", "--output", tmp_path / "o", "--resume")
    assert other.status == 2
    assert "different settings" in other.err


def test_stored_maps_are_scored_like_the_method_that_made_them(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    made = cli("explain", photos, "--method", "gradcam", "--save", "array", "--size", "64",
               "--output", tmp_path / "maps")  # fmt: skip
    assert made.status == 0, made.err
    ran = run(cli, photos, "--method", "gradcam", "--maps", tmp_path / "maps", "--metrics",
              "road,drop", "--baselines", "center")  # fmt: skip
    assert ran.status == 0, ran.err
    own, stored = ran.lines[:2]
    assert stored["method"].endswith("maps")
    for name, metric in own["metrics"].items():
        assert stored["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-4)


def test_a_map_that_is_not_finite_is_named_and_leaves_its_image_out(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    np.save(maps / "chelsea.npy", np.full((7, 7), np.nan))
    np.save(maps / "coffee.npy", np.eye(7))
    ran = run(cli, photos, "--maps", maps, "--metrics", "coverage")
    assert ran.status == 1
    assert "chelsea.jpg: map is not finite" in ran.err
    assert {line["image"] for line in read_lines(tmp_path / "camcli-faith")} == {"coffee.jpg"}


def test_limits_decide_the_exit_status(cli: Cli, photos: Path) -> None:
    arguments = (photos, "--method", "gradcam", "--metrics", "coverage", "--baselines", "none")
    assert run(cli, *arguments, "--fail-over", "coverage=1").status == 0
    ran = run(cli, *arguments, "--fail-under", "coverage=0.99", "--overwrite")
    assert ran.status == 1
    assert "coverage is 0." in ran.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "top:3"], "several classes"),
        (["--target", "finer:3"], "no confidence"),
        (["--fit", "tencrop"], "ten crops"),
        (["--metrics", "raod"], "did you mean road"),
        (["--baselines", "centre"], "did you mean center"),
        (["--sanity", "all"], "--sanity all"),
        (["--blur", "10:2"], "--blur"),
        (["--maps", "nowhere"], "no such folder"),
        (["--fail-under", "road"], "METRIC=X"),
        (["--fail-over", "iou=1"], "no such metric"),
        (["--resume", "--overwrite"], "cannot be combined"),
    ],
)
def test_wrong_options_are_refused(
    cli: Cli, photos: Path, options: list[str], message: str
) -> None:
    ran = run(cli, photos, *options)
    assert ran.status == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1


def test_the_library_computes_the_same_and_leaves_the_network_as_it_was(photos: Path) -> None:
    model = camcli.load(size=64)
    before = {name: (id(p), p.clone()) for name, p in model.network.named_parameters()}
    reports = [
        camcli.evaluate_faithfulness(
            model, photos, method="gradcam", metrics="road,sds", cells=2, sanity=sanity, resamples=0
        )
        for sanity in ("none", "cascade")
    ]
    assert reports[0].rows == reports[1].rows
    assert reports[0].sanity is None
    assert reports[1].sanity is not None
    for name, parameter in model.network.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])


def test_padding_is_no_evidence(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Of a padded photograph of 451x300, rows 10.7 to 53.3 of 64 show the image."""
    ran = run(cli, photos / "chelsea.jpg", "--method", "gradcam", "--fit", "pad", "--metrics",
              "deletion")  # fmt: skip
    assert ran.status == 0, ran.err
    assert {line["pixels"] for line in read_lines(tmp_path / "camcli-faith")} == {64 * 42}
