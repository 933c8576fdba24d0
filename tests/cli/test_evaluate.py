"""`camcli evaluate localization`, from the command line to the files it leaves."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import timm
import torch
from conftest import SAMPLES, Cli, heed_interrupts
from PIL import Image

SCHEMA = json.loads((files("camcli") / "io/schemas/localization.schema.json").read_text())
BOXES: dict[str, tuple[str, tuple[int, int, int, int]]] = {
    "chelsea.jpg": ("Egyptian cat", (60, 10, 420, 300)),
    "coffee.jpg": ("espresso", (130, 60, 470, 380)),
    "rocket.jpg": ("drilling platform", (300, 40, 350, 330)),
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The sample photographs with boxes drawn by hand."""
    folder = tmp_path / "set"
    folder.mkdir()
    rows = ["image,class,x1,y1,x2,y2"]
    for name, (label, corners) in BOXES.items():
        (folder / name).symlink_to(SAMPLES / name)
        rows.append(f"{name},{label},{','.join(map(str, corners))}")
    (folder / "boxes.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_a_table_a_document_and_pictures(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    ran = cli("evaluate", "localization", dataset, "--method", "gradcam,layercam", "--layers",
              "last", "--layers", "stage4..5")  # fmt: skip
    assert ran.status == 0, ran.err
    methods = [line["method"] for line in ran.lines]
    assert methods == ["gradcam", "layercam", "gradcam", "layercam", "gaussian", "random"]
    first = ran.lines[0]
    assert first["images"] == 3
    assert {"cls_1", "loc_1", "gt_known", "max_box_acc", "max_box_acc_v2", "pointing"} <= set(
        first["metrics"]
    )
    assert "pxap" not in first["metrics"]
    gt = first["metrics"]["gt_known"]
    assert gt["low"] <= gt["value"] <= gt["high"]
    out = tmp_path / "camcli-eval"
    document = json.loads((out / "localization.json").read_text())
    assert [r["method"] for r in document["rows"]] == methods
    jsonschema.validate(document, SCHEMA)
    assert "box_acc" not in document["rows"][-1]["metrics"]
    assert len(document["rows"][0]["curves"]["box_acc_at_threshold"]) == 255
    with (out / "localization.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["gt_known"]) == pytest.approx(gt["value"], abs=1e-4)
    lines = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 6
    share = np.mean([x["iou"] >= 0.5 for x in lines if x["method"] == "gaussian"])
    assert share == pytest.approx(ran.lines[4]["metrics"]["gt_known"]["value"], abs=1e-4)
    pictures = sorted(p.name for p in out.iterdir() if p.suffix in (".png", ".jpg"))
    assert sum(name.startswith("gallery.") for name in pictures) == 4
    assert {"thresholds.png", "overlaps.png", "splits.png"} <= set(pictures)
    for name in pictures:
        with Image.open(out / name) as picture:
            assert np.asarray(picture.convert("L")).min() < 100


def test_charts_take_a_format_and_replace_those_of_another(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    plain = ("evaluate", "localization", dataset, "--resamples", "0", "--overwrite")
    for chart_format in ("svg", "png"):
        assert cli(*plain, "--chart-format", chart_format).status == 0
        charts = [tmp_path / "camcli-eval" / name for name in ("thresholds", "overlaps", "splits")]
        found = [[*chart.parent.glob(f"{chart.name}.*")] for chart in charts]
        assert found == [[chart.with_suffix(f".{chart_format}")] for chart in charts]


def test_a_finished_run_is_not_overwritten_unasked(cli: Cli, dataset: Path) -> None:
    command = ("evaluate", "localization", dataset, "--resamples", "0")
    assert cli(*command).status == 0
    again = cli(*command, "--output", "camcli-eval")
    assert again.status == 2
    assert "--overwrite" in again.err
    assert cli(*command).err.endswith("(open camcli-eval-2/thresholds.png)\n")
    assert cli(*command, "--overwrite").err.endswith("(open camcli-eval-2/thresholds.png)\n")


def test_ci_can_ask_for_a_least_value(cli: Cli, dataset: Path) -> None:
    command = ("evaluate", "localization", dataset, "--resamples", "0", "--overwrite")
    assert cli(*command, "--fail-under", "gt_known=0").status == 0
    failed = cli(*command, "--fail-under", "gt_known=1.01")
    assert failed.status == 1
    assert "gt_known is" in failed.err
    assert "under 1.01" in failed.err
    absent = cli(*command, "--fail-under", "pxap=0.1")
    assert absent.status == 1
    assert "pxap is not measured" in absent.err
    wrong = cli(*command, "--fail-under", "gtknown=0.1")
    assert wrong.status == 2
    assert "gt_known" in wrong.err


def test_what_is_wrong_with_the_data_is_counted_and_strict_stops(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    (dataset / "broken.jpg").write_bytes(b"not a picture")
    with (dataset / "boxes.csv").open("a") as file:
        file.write("gone.jpg,espresso,1,1,9,9\nbroken.jpg,espresso,1,1,9,9\n")
        file.write("coffee.jpg,unicorn,1,1,9,9\nchelsea.jpg,Egyptian cat,9,9,1,1\n")
        file.write("rocket.jpg,drilling platform,5000,1,6000,9\n")
    ran = cli("evaluate", "localization", dataset, "--resamples", "0")
    assert ran.status == 1
    assert ran.lines[0]["images"] == 3
    document = json.loads((tmp_path / "camcli-eval/localization.json").read_text())
    jsonschema.validate(document, SCHEMA)
    assert {kind: found["count"] for kind, found in document["problems"].items()} == {
        "image is missing": 1,
        "image cannot be read": 1,
        "class is unknown to the model": 1,
        "box is inverted or empty": 1,
        "box is outside the image": 1,
    }
    for kind in document["problems"]:
        assert f"1 x {kind}" in ran.err
    assert "unicorn" in (tmp_path / "camcli-eval/problems.csv").read_text()
    strict = cli("evaluate", "localization", dataset, "--strict", "--overwrite")
    assert strict.status == 2
    assert len(strict.err.splitlines()) == 1


def test_nothing_to_evaluate_says_why(cli: Cli, dataset: Path) -> None:
    (dataset / "boxes.csv").write_text("image,class,x1,y1,x2,y2\ncoffee.jpg,unicorn,1,1,9,9\n")
    ran = cli("evaluate", "localization", dataset)
    assert ran.status == 2
    assert "unicorn" in ran.err


def test_maps_on_disk_score_as_the_same_maps_from_a_model(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "targets.csv").write_text(
        "image,class\n" + "\n".join(f"{name},{label}" for name, (label, _) in BOXES.items())
    )
    given = cli("explain", dataset, "--target", "@targets.csv", "--save", "array", "--output", "a")
    assert given.status == 0, given.err
    model = cli("evaluate", "localization", dataset, "--resamples", "0", "--output", "m")
    maps = cli("evaluate", "localization", dataset, "--resamples", "0", "--maps", "a",
               "--output", "d")  # fmt: skip
    assert maps.status == 0, maps.err
    for name in ("gt_known", "max_box_acc", "max_box_acc_v2", "pointing", "energy", "box_acc"):
        one, other = (ran.lines[0]["metrics"][name]["value"] for ran in (model, maps))
        assert one == pytest.approx(other, abs=1e-4), name
    assert "cls_1" not in maps.lines[0]["metrics"]


def test_maps_of_several_methods_score_as_those_of_the_chosen_ones(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    table = "image,class\n" + "".join(f"{name},{label}\n" for name, (label, _) in BOXES.items())
    (tmp_path / "targets.csv").write_text(table)
    both = ("--method", "gradcam,layercam")
    cli("explain", dataset, "--target", "@targets.csv", "--save", "array", *both, "--output", "a")
    command = ("evaluate", "localization", dataset, "--resamples", "0")
    model = cli(*command, *both, "--output", "m")
    maps = cli(*command, *both, "--maps", "a", "--output", "d")
    assert maps.status == 0, maps.err
    for method in ("gradcam", "layercam"):
        one, other = (
            next(line for line in ran.lines if line["method"] == method) for ran in (model, maps)
        )
        assert one["metrics"]["gt_known"]["value"] == pytest.approx(
            other["metrics"]["gt_known"]["value"], abs=1e-4
        )
    asked = cli(*command, "--maps", "a", "--output", "e")
    assert asked.status == 2
    assert "several maps (gradcam, layercam in a; choose one with --method NAME)" in asked.err


def test_anybodys_maps_and_those_that_cannot_be_read(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    shown = np.zeros((224, 224))
    shown[40:200, 60:170] = 1
    np.save(maps / "coffee.jpg.npy", shown)
    np.save(maps / "chelsea.npy", np.array([{"code": os.system}], dtype=object), allow_pickle=True)
    ran = cli("evaluate", "localization", dataset, "--maps", maps, "--resamples", "0")
    assert ran.status == 1
    assert ran.lines[0]["images"] == 1
    assert "chelsea.jpg: map cannot be read" in ran.err
    assert "rocket.jpg: map is missing" in ran.err
    np.save(maps / "chelsea.npy", np.full((7, 7), np.nan))
    np.save(maps / "rocket.npy", np.zeros((3, 7, 7)))
    blank = cli("evaluate", "localization", dataset, "--maps", maps, "--overwrite")
    assert blank.lines[0]["blank_maps"] == 1
    assert "expected a 2-D array" in blank.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["set", "--maps", "nowhere"], "--maps nowhere"),
        (["set", "--images", "nowhere"], "--images nowhere"),
        (["set", "--method", "gradcamm"], "gradcam"),
        (["set", "--model", "a", "--models", "b"], "--models"),
        (["set", "--models", "a,b", "--checkpoint", "set/boxes.csv"], "--checkpoint"),
        (["set", "--maps", "set", "--layers", "last"], "--maps"),
        (["set", "--block", "11"], "has blocks 0..3"),
        (["set", "--maps", "set", "--block", "1"], "--maps"),
        (["set", "--fail-under", "gt_known=high"], "gt_known=0.6"),
        (["set", "--fail-under", "gt_known=nan"], "gt_known=0.6"),
        (["set", "--maps", "set/boxes.csv"], "no such folder"),
        (["set", "--classes", "unicorn"], "unicorn"),
    ],
)
def test_wrong_usage_is_one_line(cli: Cli, dataset: Path, arguments: list[str], said: str) -> None:
    ran = cli("evaluate", "localization", *arguments)
    assert ran.status == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1, ran.err


def test_several_models_in_one_run(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    network = timm.create_model("deit_tiny_patch16_224", num_classes=0)
    head = {"head.weight": torch.randn(1000, 192, 3, 3), "head.bias": torch.zeros(1000)}
    torch.save({"state_dict": network.state_dict() | head}, tmp_path / "tscam.pth")
    names = f"tf_efficientnet_lite0,{tmp_path / 'tscam.pth'}"
    ran = cli("evaluate", "localization", dataset, "--models", names, "--resamples", "0",
              "--format", "table", "--limit", "2")  # fmt: skip
    assert ran.status == 0, ran.err
    top, *rows = [line.split() for line in ran.out.splitlines()]
    assert top[:2] == ["model", "method"]
    methods = [row[1] for row in rows]
    assert methods == ["gradcam", "gaussian", "random", "tscam", "gaussian", "random"]


def test_a_mistake_leaves_an_earlier_run_as_it_is(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    command = ("evaluate", "localization", dataset, "--resamples", "0")
    assert cli(*command).status == 0
    before = (tmp_path / "camcli-eval/images.jsonl").read_bytes()
    for mistake in (("--model", "nosuch"), ("--classes", "unicorn"), ("--labels", dataset)):
        assert cli(*command, "--overwrite", *mistake).status == 2
        assert (tmp_path / "camcli-eval/images.jsonl").read_bytes() == before
    assert cli(*command, "--model", "nosuch", "--output", "other").status == 2
    assert not (tmp_path / "other").exists()


def test_overwriting_leaves_nothing_stale_and_follows_no_link(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    out, victim = tmp_path / "camcli-eval", tmp_path / "victim"
    command = ("evaluate", "localization", dataset, "--resamples", "0", "--overwrite")
    with (dataset / "boxes.csv").open("a") as file:
        file.write("gone.jpg,espresso,1,1,9,9\n")
    assert cli(*command, "--method", "layercam").status == 1
    assert (out / "problems.csv").exists()
    (dataset / "gone.jpg").symlink_to(SAMPLES / "coffee.jpg")
    victim.write_text("mine")
    (out / "images.jsonl").unlink()
    (out / "images.jsonl").symlink_to(victim)
    assert cli(*command).status == 0
    assert victim.read_text() == "mine"
    assert not (out / "problems.csv").exists()
    assert [p.name for p in out.glob("gallery.*")] == [
        "gallery.tf_efficientnet_lite0-gradcam-bn2.jpg"
    ]


def test_what_is_scored_is_told_before_what_went_wrong(cli: Cli, dataset: Path) -> None:
    ran = cli("evaluate", "localization", dataset, "--resamples", "0", "--models",
              "tf_efficientnet_lite0,nosuch")  # fmt: skip
    assert ran.status == 2
    assert [line["method"] for line in ran.lines] == ["gradcam", "gaussian", "random"]
    assert "nosuch" in ran.err
    document = json.loads(Path("camcli-eval/localization.json").read_text())
    jsonschema.validate(document, SCHEMA)
    assert not document["complete"]


def test_checkpoints_of_one_architecture_are_rows_of_their_own(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    network = timm.create_model("deit_tiny_patch16_224", num_classes=0)
    for name in ("a.pth", "b.pth"):
        head = {"head.weight": torch.randn(1000, 192, 3, 3), "head.bias": torch.zeros(1000)}
        torch.save({"state_dict": network.state_dict() | head}, tmp_path / name)
    first = str(tmp_path / "a.pth")
    ran = cli("evaluate", "localization", dataset, "--models", f"{first},b.pth", "--limit", "1",
              "--resamples", "0")  # fmt: skip
    assert [line["model"] for line in ran.lines] == [first] * 3 + ["b.pth"] * 3
    assert {line["images"] for line in ran.lines} == {1}
    galleries = sorted(path.name for path in Path("camcli-eval").glob("gallery.*"))
    assert [name.partition("-")[0] for name in galleries] == ["gallery.a.pth", "gallery.b.pth"]


def savez(path: Path, arrays: dict[str, Any]) -> None:
    np.savez(path, **arrays)


def broken_maps(folder: Path) -> list[str]:
    """Maps of coffee.jpg that cannot be: what is in each file, by name."""
    savez(folder / "zip.npz", {"504/fused": np.ones((7, 7))})
    archive = (folder / "zip.npz").read_bytes()
    good = io.BytesIO()
    np.save(good, np.ones((7, 7)))
    header = good.getvalue()
    contents = {
        "cut.npz": archive[: len(archive) // 2],
        "flipped.npz": archive[:60] + bytes(255 - b for b in archive[60:90]) + archive[90:],
        "cut.npy": header[:40],
        "short.npy": header[:-9],
        "huge.npy": header.replace(b"(7, 7)", b"(7**9,"),
        "text.npy": b"no array",
        "empty.npy": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    savez(folder / "other.npz", {"3/fused": np.ones((7, 7))})
    np.save(folder / "complex.npy", np.ones((7, 7), complex))
    np.save(folder / "none.npy", np.ones((0, 7)))
    return [*contents, "other.npz", "complex.npy", "none.npy"]


def test_maps_that_cannot_be_read_are_named_one_by_one(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps/chelsea.npy", np.eye(7) * 1e308)
    for name in broken_maps(files):
        at = tmp_path / f"maps/coffee{Path(name).suffix}"
        at.write_bytes((files / name).read_bytes())
        ran = cli("evaluate", "localization", dataset, "--maps", "maps", "--resamples", "0",
                  "--overwrite")  # fmt: skip
        assert ran.status == 1, name
        assert "coffee.jpg: map cannot be read" in ran.err, name
        assert ran.lines[0]["images"] == 1
        assert ran.lines[0]["blank_maps"] == 0
        at.unlink()


def test_maps_need_no_class_that_imagenet_has(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    (dataset / "boxes.csv").write_text(
        "image,class,x1,y1,x2,y2\ncoffee.jpg,unicorn,1,1,90,90\nrocket.jpg,phoenix,1,1,1e8,9\n"
    )
    maps = tmp_path / ("long" * 40) / "a $\\frac$ map"
    maps.mkdir(parents=True)
    np.save(maps / "coffee.npy", np.eye(7))
    np.save(maps / "rocket.npy", np.eye(7))
    ran = cli("evaluate", "localization", dataset, "--maps", maps, "--resamples", "0")
    assert ran.status == 0, ran.err
    assert ran.lines[0]["images"] == 2


def test_maps_are_scored_without_the_images_if_their_sizes_are_known(
    cli: Cli, tmp_path: Path
) -> None:
    folder = tmp_path / "meta" / "test"
    folder.mkdir(parents=True)
    for name, line in {
        "image_ids.txt": "val2/1/0.jpeg",
        "class_labels.txt": "val2/1/0.jpeg,1",
        "image_sizes.txt": "val2/1/0.jpeg,500,300",
        "localization.txt": "val2/1/0.jpeg,50,60,250,240",
    }.items():
        (folder / name).write_text(f"{line}\n")
    shown = np.zeros((224, 224))
    shown[45:179, 23:112] = 1
    (tmp_path / "maps/val2/1").mkdir(parents=True)
    np.save(tmp_path / "maps/val2/1/0.jpeg.npy", shown)
    ran = cli("evaluate", "localization", "meta", "--maps", "maps", "--resamples", "0")
    assert ran.status == 0, ran.err
    assert ran.lines[0]["metrics"]["gt_known"]["value"] == 1
    model = cli("evaluate", "localization", "meta", "--overwrite")
    assert model.status == 2
    assert "image is missing" in model.err


def test_a_map_of_another_image_of_that_name_is_not_taken(cli: Cli, tmp_path: Path) -> None:
    rows = ["image,class,x1,y1,x2,y2"]
    for folder in ("cats", "dogs"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "1.jpg").symlink_to(SAMPLES / "coffee.jpg")
        rows.append(f"{folder}/1.jpg,espresso,1,1,90,90")
    (tmp_path / "set/boxes.csv").write_text("\n".join(rows))
    (tmp_path / "maps/cats").mkdir(parents=True)
    np.save(tmp_path / "maps/1.npy", np.eye(7))
    np.save(tmp_path / "maps/cats/1.npy", np.eye(7))
    ran = cli("evaluate", "localization", "set", "--maps", "maps", "--resamples", "0")
    assert ran.status == 1
    assert "dogs/1.jpg: map is missing" in ran.err
    assert ran.lines[0]["images"] == 1


def test_an_interrupt_tells_what_was_scored(dataset: Path, tmp_path: Path) -> None:
    rows = ["image,class,x1,y1,x2,y2"]
    for i in range(300):
        (dataset / f"{i}.jpg").symlink_to(SAMPLES / "coffee.jpg")
        rows.append(f"{i}.jpg,espresso,77,18,478,388")
    (dataset / "boxes.csv").write_text("\n".join(rows))
    command = [sys.executable, "-m", "camcli", "evaluate", "localization", str(dataset)]
    process = subprocess.Popen(
        [*command, "--batch-size", "1", "--output", str(tmp_path / "o")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    scored = tmp_path / "o/images.jsonl"
    while process.poll() is None and not (scored.exists() and scored.stat().st_size > 3000):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.strip().endswith("interrupted; all files written so far are complete")
    document = json.loads((tmp_path / "o/localization.json").read_text())
    assert not document["complete"]
    assert 0 < document["rows"][0]["images"] < 300
    assert len(out.splitlines()) == 3


def test_resume_scores_only_what_is_missing(cli: Cli, dataset: Path, tmp_path: Path) -> None:
    """A torn scores.jsonl: the rest is scored again, and the report is that of an unbroken run."""
    own = ("evaluate", "localization", dataset, "--method", "gradcam,layercam", "--output", "o")
    assert cli(*own).status == 0
    out = tmp_path / "o"
    names = ("localization.json", "localization.csv")
    whole = {name: (out / name).read_text() for name in names}
    images = sorted((out / "images.jsonl").read_text().splitlines())
    log = out / "scores.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:6]) + lines[6][:50])  # one image of four rows, and a half
    ran = cli(*own, "--resume")
    assert ran.status == 0, ran.err
    assert {name: (out / name).read_text() for name in names} == whole
    assert sorted((out / "images.jsonl").read_text().splitlines()) == images
    assert len(log.read_bytes().splitlines()) >= len(lines)
    again = cli(*own, "--resume")  # nothing is left to score
    assert again.status == 0, again.err
    assert {name: (out / name).read_text() for name in names} == whole
    other = cli(*own[:-4], "--method", "cam", "--output", "o", "--resume")
    assert other.status == 2
    assert "scores of other settings" in other.err


def test_resume_goes_on_to_a_model_without_any_score(
    cli: Cli, dataset: Path, tmp_path: Path
) -> None:
    """Stopped between two models: the first one's scores stay, the second one's are computed."""
    own = ("evaluate", "localization", dataset, "--models", "tf_efficientnet_lite0,vit_lite0",
           "--method", "gradcam", "--output", "o")  # fmt: skip
    assert cli(*own).status == 0
    report, log = tmp_path / "o" / "localization.json", tmp_path / "o" / "scores.jsonl"
    whole = report.read_text()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if b"tf_efficientnet" in line))
    assert 0 < len(log.read_bytes()) < sum(map(len, lines))
    ran = cli(*own, "--resume")
    assert ran.status == 0, ran.err
    assert report.read_text() == whole
