"""The command line as its users meet it: files in, files and lines out, one line for what fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, SAMPLES, Cli, heed_interrupts, lively
from PIL import Image

import camcli
from camcli.cli import console

SCHEMA = json.loads((Path(camcli.__file__).parent / "io/schemas/results.schema.json").read_text())


def valid(line: dict[str, Any]) -> dict[str, Any]:
    jsonschema.validate(line, SCHEMA)
    return line


def manifest(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "run.json").read_text())
    schema = json.loads((Path(camcli.__file__).parent / "io/schemas/run.schema.json").read_text())
    jsonschema.validate(document, schema)
    return document


def test_a_run_says_what_it_is_made_of(cli: Cli, tmp_path: Path) -> None:
    file = vit_file(tmp_path)
    (tmp_path / "bad.jpg").write_text("no picture")
    options = ("--model", file, "--save", "boxes", "--target", "3", "--seed", "7")
    assert cli("explain", *PHOTOS[:2], tmp_path / "bad.jpg", *options).status == 1
    found = manifest(tmp_path / "camcli-out")
    assert found["state"] == "done"
    assert found["model"]["checkpoint"]["sha256"] == sha256(file.read_bytes()).hexdigest()
    assert found["settings"]["seed"] == 7
    assert found["counts"]["done"] == 2
    assert [f["path"] for f in found["counts"]["failures"]] == [str(tmp_path / "bad.jpg")]
    assert found["seconds"].keys() == {"reading", "computing", "writing"}


def read(output: Path) -> list[dict[str, Any]]:
    lines = (output / "results.jsonl").read_text().splitlines()
    return [valid(json.loads(line)) for line in lines]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        picture.load()
        return picture.size


def vit_file(tmp_path: Path) -> Path:
    path = tmp_path / "vit.pth"
    torch.save(lively(timm.create_model("test_vit", num_classes=4)).state_dict(), path)
    return path


def test_samples_with_every_output(cli: Cli, tmp_path: Path) -> None:
    ran = cli("explain", SAMPLES, "--save", "overlay,heatmap,grid,boxes,array", "--target", "top:2")
    assert ran.status == 0, ran.err
    lines = read(tmp_path / "camcli-out")
    assert lines == ran.lines  # a pipe gets what results.jsonl holds
    assert [line["image"] for line in lines] == [p.name for p in PHOTOS]
    for line in lines:
        width, height = size_of(SAMPLES / line["image"])
        assert (line["width"], line["height"]) == (width, height)
        assert [e["score"] for e in line["explanations"]] == sorted(
            (e["score"] for e in line["explanations"]), reverse=True
        )
        for found in line["explanations"]:
            files = {kind: tmp_path / "camcli-out" / f for kind, f in found["files"].items()}
            assert set(files) == {"overlay", "heatmap", "grid", "boxes", "array"}
            assert size_of(files["overlay"])[0] == width
            assert height < size_of(files["overlay"])[1] < 1.15 * height  # the caption is below
            assert size_of(files["heatmap"]) == (width, height)
            assert size_of(files["grid"])[0] > 500
            assert json.loads(files["boxes"].read_text())["boxes"] == found["boxes"]
            (box,) = found["boxes"]
            assert 0 <= box["x1"] < box["x2"] <= width
            assert 0 <= box["y1"] < box["y2"] <= height
            with np.load(files["array"]) as arrays:
                raw = arrays[f"{found['class_index']}/bn2"]
                assert raw.dtype == np.float32
                assert raw.shape == (7, 7)
                assert np.array_equal(raw, arrays[f"{found['class_index']}/fused"])


def test_layercam_over_stages_and_two_methods_in_one_run(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        *("explain", PHOTOS[0], "--method", "layercam", "--method", "gradcam"),
        *("--layers", "stage1..5", "--save", "grid,array"),
    )
    assert ran.status == 0, ran.err
    assert [line["method"] for line in ran.lines] == ["layercam", "gradcam"]
    assert [len(line["layers"]) for line in ran.lines] == [5, 5]
    files = {f for line in ran.lines for f in line["explanations"][0]["files"].values()}
    assert "chelsea.egyptian-cat.layercam.grid.jpg" in files
    assert "chelsea.gradcam.npz" in files
    with np.load(tmp_path / "camcli-out" / "chelsea.layercam.npz") as arrays:
        assert arrays["285/blocks.0"].shape == (112, 112)
        assert arrays["285/fused"].shape == (224, 224)


def test_without_fusion_each_layer_is_an_answer_of_its_own(cli: Cli, tmp_path: Path) -> None:
    ran = cli("explain", PHOTOS[0], "--layers", "stage4,stage5", "--fusion", "none")
    assert [line["layers"] for line in ran.lines] == [["blocks.4"], ["blocks.6"]]
    names = sorted(p.name for p in (tmp_path / "camcli-out").glob("*.jpg"))
    assert names == [f"chelsea.egyptian-cat.gradcam.blocks.{n}.overlay.jpg" for n in (4, 6)]


def test_a_vit_is_explained_by_its_attention_unless_layers_are_named(
    cli: Cli, tmp_path: Path
) -> None:
    trained = cli("explain", PHOTOS[0], "--model", "tscam_vit_lite0", "--output", "t")
    assert trained.lines[0]["method"] == "tscam"  # for a head that was trained for it
    command = ("explain", PHOTOS[0], "--model", "test_vit", "--checkpoint", vit_file(tmp_path))
    assert cli(*command).lines[0]["method"] == "chefer"
    for layers in (("--block", "-1"), ("--layers", "last")):
        assert cli(*command, *layers, "--overwrite").lines[0]["method"] == "gradcam"
    assert cli("explain", PHOTOS[0], "--overwrite").lines[0]["method"] == "gradcam"


def test_tscam_on_a_plain_vit_says_that_its_head_is_linear(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        *("explain", PHOTOS[0], "--model", "test_vit", "--checkpoint", vit_file(tmp_path)),
        *("--method", "tscam", "--save", "grid,array"),
    )
    assert ran.status == 0, ran.err
    (line,) = ran.lines
    assert valid(line)["head"] == "linear"
    index = line["explanations"][0]["class_index"]
    with np.load(tmp_path / "camcli-out" / "chelsea.tscam.npz") as arrays:
        parts = [arrays[f"{index}/{name}"] for name in ("attention", "semantic", "fused")]
        blocks = [arrays[f"{index}/blocks.{n}"] for n in range(6)]
    assert np.allclose(parts[0] * parts[1], parts[2], atol=1e-5)
    assert np.allclose(sum(blocks), parts[0], atol=1e-5)


def test_zero_gradient_is_said_and_never_drawn(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        *("explain", PHOTOS[0], "--model", "test_vit", "--checkpoint", vit_file(tmp_path)),
        *("--layers", "blocks.5", "--image-format", "png"),
    )
    assert ran.status == 1
    (found,) = valid(ran.lines[0])["explanations"]
    assert found["map_status"] == "zero_gradient"
    assert found["boxes"] == []
    assert "chelsea.jpg: no map" in ran.err
    assert "Try --layers blocks.5.norm1" in ran.err
    with Image.open(tmp_path / "camcli-out" / found["files"]["overlay"]) as opened:
        picture = np.asarray(opened)
    grey = (picture.max(axis=2) - picture.min(axis=2)) < 8
    assert grey.mean() > 0.9  # no colours of a heatmap


def test_weights_that_are_not_numbers_yield_no_answer(cli: Cli, tmp_path: Path) -> None:
    network = lively(timm.create_model("test_resnet", num_classes=4))
    network.get_classifier().weight.data.fill_(float("nan"))  # type: ignore[operator]
    torch.save(network.state_dict(), tmp_path / "nan.pth")
    ran = cli(
        *("explain", PHOTOS[0], "--model", "test_resnet", "--checkpoint", tmp_path / "nan.pth"),
        *("--layers", "layer4", "--save", "overlay,heatmap,grid,boxes,array"),
    )
    assert ran.status == 1
    (found,) = valid(ran.lines[0])["explanations"]
    assert (found["map_status"], found["score"]) == ("non_finite", None)


def test_bad_images_are_named_and_the_others_unharmed(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").touch()
    (folder / "half.jpg").write_bytes(PHOTOS[0].read_bytes()[:9000])
    for name in ("a b.jpg", "-dash.jpg", "猫.jpg", "new\nline.jpg", "[red]x[1].jpg"):
        (folder / name).write_bytes(PHOTOS[0].read_bytes())
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    Image.effect_noise((4000, 3), 50).save(folder / "strip.png")
    ran = cli("explain", folder, "--save", "overlay,heatmap,grid,boxes")
    assert ran.status == 1
    status = {line["image"]: line["status"] for line in map(valid, ran.lines)}
    failed = {name for name, what in status.items() if what == "failed"}
    assert failed == {"text.jpg", "empty.png", "half.jpg"}
    assert len(status) == 10
    for name in failed:
        assert sum(name in line for line in ran.err.splitlines()) == 1
    assert "Traceback" not in ran.err
    assert all(len(line) < 400 for line in ran.err.splitlines())


def test_two_files_of_one_stem_keep_their_suffixes(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with Image.open(PHOTOS[0]) as picture:
        picture.save(folder / "a.png")
        picture.save(folder / "a.jpg")
    ran = cli("explain", folder, "--save", "overlay")
    files = [line["explanations"][0]["files"]["overlay"] for line in ran.lines]
    assert files == [f"a.{e}.egyptian-cat.gradcam.overlay.jpg" for e in ("jpg", "png")]


def test_a_map_that_varies_in_the_padding_only_is_no_answer(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from camcli.runs import pipeline

    monkeypatch.setattr(pipeline, "crop_visible_map", lambda *_: np.zeros((224, 150), np.float32))
    ran = cli("explain", PHOTOS[0], "--fit", "pad", "--save", "boxes", "--threshold", "otsu")
    assert ran.status == 1
    assert ran.lines[0]["explanations"][0]["map_status"] == "constant"


def test_long_names_that_begin_alike_keep_their_own_pictures(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for n, photo in enumerate(PHOTOS):
        (folder / f"{'x' * 120}{n}.jpg").write_bytes(photo.read_bytes())
    ran = cli("explain", folder, "--save", "overlay", "--caption", "none", "--workers", "4")
    assert ran.status == 0, ran.err
    for line, photo in zip(ran.lines, PHOTOS, strict=True):
        file = tmp_path / "camcli-out" / line["explanations"][0]["files"]["overlay"]
        assert size_of(file) == size_of(photo)


def test_an_existing_run_is_not_overwritten_unasked(cli: Cli, tmp_path: Path) -> None:
    run = ("explain", PHOTOS[0], "--save", "boxes", "--output", "o")
    assert cli(*run).status == 0
    before = (tmp_path / "o" / "results.jsonl").read_text()
    again = cli(*run)
    assert again.status == 2
    assert "--overwrite" in again.err
    assert (tmp_path / "o" / "results.jsonl").read_text() == before
    assert cli(*run, "--overwrite").status == 0


@pytest.mark.parametrize("kind", ["heatmap", "cutout", "mask", "map"])
def test_the_last_line_names_a_picture_of_any_kind(kind: str, cli: Cli) -> None:
    said = cli("explain", PHOTOS[0], "--save", f"boxes,{kind}").err.splitlines()[-1]
    assert f"(open camcli-out/chelsea.egyptian-cat.gradcam.{kind}." in said


def test_each_run_without_an_output_gets_a_folder_of_its_own(cli: Cli, tmp_path: Path) -> None:
    picture = "chelsea.egyptian-cat.gradcam.overlay.jpg"
    for folder in ("camcli-out", "camcli-out-2"):
        said = cli("explain", PHOTOS[0], "--save", "overlay").err.splitlines()
        assert said[-1] == f"results in {folder} (open {folder}/{picture})"
    for more in ("--resume", "--overwrite"):  # they take the newest
        said = cli("explain", PHOTOS[1], "--save", "overlay", more).err.splitlines()
        assert said[-1].startswith("results in camcli-out-2 (open camcli-out-2/coffee.")
    assert cli("explain", PHOTOS[0], "--target", "no such").status == 2
    assert cli("explain", "missing.jpg").status == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["camcli-out", "camcli-out-2"]


def test_camcli_out_may_be_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "camcli-out").write_text("mine")
    assert cli("explain", PHOTOS[0], "--save", "boxes").err.endswith("results in camcli-out-2\n")
    assert (tmp_path / "camcli-out").read_text() == "mine"


def test_without_a_threshold_there_are_no_boxes(cli: Cli, tmp_path: Path) -> None:
    ran = cli("explain", PHOTOS[0], "--threshold", "none")
    assert ran.status == 0, ran.err
    (found,) = valid(ran.lines[0])["explanations"]
    assert (found["map_status"], found["boxes"]) == ("ok", [])
    assert ran.lines[0]["threshold"] == "none"
    assert (tmp_path / "camcli-out" / found["files"]["overlay"]).is_file()


def test_models_on_this_machine_are_counted_with_the_files_here(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "vit_best.pth").touch()
    ran = cli("models", "lite0", "--loadable")
    names = ran.out.split("\n")[:-1]
    assert "vit_lite0  (embedded)" in names
    assert ran.err == f"{len(names)} models\n"
    assert "vit_best.pth  (a file here)" in cli("models", "vit*", "--loadable").out.splitlines()
    assert "lists those with vit in the name; --loadable" in cli("models").err


def test_class_names_cannot_leave_the_output_folder(cli: Cli, tmp_path: Path) -> None:
    names = ["../../evil", "/etc/passwd", "a/b\\c", "", "CON\n", "x" * 300, "漢" * 90, "猫-9"]
    names += ["猫"] * (1000 - len(names))
    (tmp_path / "names.json").write_text(json.dumps(names))
    ran = cli(
        *("explain", PHOTOS[0], "--labels", tmp_path / "names.json", "--save", "boxes"),
        *("--target", "top:1000", "--format", "quiet"),
    )
    assert ran.status in (0, 1), ran.err
    written = list(tmp_path.rglob("*.boxes.json"))
    assert len(written) == 1000
    assert {p.parent for p in written} == {tmp_path / "camcli-out"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "expresso"], "did you mean espresso"),
        (["--target", "crane"], "134 or 517"),
        (["--threshold", "none", "--save", "mask"], "leaves no region"),
        (["--target", "1000"], "no class 1000; its indices are 0..999"),
        (["--layers", "block.6"], "did you mean blocks.6"),
        (["--layers", "stage9"], "stage1..5"),
        (["--block", "3", "--model", "tf_efficientnet_lite0"], "no transformer blocks"),
        (["--block", "11"], "has blocks 0..3; write --block 3, or choose a deeper network"),
        (["--block", "three"], "write a number such as 11 or -1"),
        (["--layers", "stage3..1"], "write the smaller number first"),
        (["--method", "tscam", "--model", "tf_efficientnet_lite0"], "needs attention over all"),
        (["--method", "cam", "--layers", "stage3"], "have no effect on cam, which read"),
        (["--model", "restnet50"], "did you mean resnet50"),
        (["--checkpoint", "missing.pth"], "no such file"),
        (["--colormap", "jett"], "did you mean jet"),
        (["--device", "tpu9"], "--device tpu9"),
        (["--device", "cuda:77"], "no such device"),
        (["--output", "taken"], "taken"),
    ],
)
def test_wrong_usage_is_one_line(cli: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "taken").write_text("a file")
    ran = cli("explain", PHOTOS[0], *arguments)
    assert ran.status == 2, ran.err
    assert says in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert ran.out == ""


def test_a_list_on_stdin(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PHOTOS[1]}\n\n{PHOTOS[0]}\n"))
    ran = cli("explain", "-", "--save", "boxes")
    assert [line["image"] for line in ran.lines] == [PHOTOS[1].name, PHOTOS[0].name]


def test_the_batch_size_does_not_change_results(cli: Cli, tmp_path: Path) -> None:
    arguments = ("explain", SAMPLES, "--method", "gradcam,layercam,cam", "--save", "boxes,array")
    runs = [cli(*arguments, "--batch-size", n, "--output", tmp_path / str(n)).lines for n in (1, 8)]
    for one, eight in zip(*runs, strict=True):
        assert one["image"] == eight["image"]
        for a, b in zip(one["explanations"], eight["explanations"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=1e-5)
            with (
                np.load(tmp_path / "1" / a["files"]["array"]) as first,
                np.load(tmp_path / "8" / b["files"]["array"]) as second,
            ):
                assert set(first) == set(second)
                for key in first:
                    scale = 1 + np.abs(first[key]).max()
                    assert np.abs(first[key] - second[key]).max() <= 1e-5 * scale


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_fits_are_undone_on_the_original(cli: Cli, tmp_path: Path, fit: str) -> None:
    ran = cli("explain", PHOTOS[1], "--fit", fit, "--save", "overlay,heatmap,grid")
    found = ran.lines[0]["explanations"][0]
    width, height = size_of(PHOTOS[1])
    with Image.open(tmp_path / "camcli-out" / found["files"]["heatmap"]) as heat:
        assert heat.size == (width, height)
        corner = heat.getpixel((0, 0))
    assert (corner == (128, 128, 128)) == (fit == "crop")  # grey: the crop did not see it


def program(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "camcli", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def many(tmp_path: Path, count: int) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(count):
        (folder / f"{n:03}.jpg").write_bytes(PHOTOS[0].read_bytes())
    return folder


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "LOG_INTERVAL_SECONDS", 0.0)
    command = ("explain", SAMPLES, "--save", "boxes", "--batch-size", "1")
    said = cli(*command).err
    told = re.findall(r"^explaining (\d) of 4, \d+\.\d a second, 0:00:\d\d left$", said, re.M)
    assert told == ["1", "2", "3", "4"]
    assert "explaining" not in cli(*command, "--format", "quiet", "--overwrite").err


def test_a_summary_says_why_images_failed_and_where_the_time_went(cli: Cli, tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.jpg").write_bytes(b"" if n else b"no picture")
    said = cli("explain", PHOTOS[0], *tmp_path.glob("*.jpg"), "--save", "boxes").err
    summary = said.splitlines()[-2]
    assert re.match(
        r"1 image in .* s \(network .* a second after.*: \d+ % reading, \d+ % comp", summary
    )
    assert "3 failed (2: the file is empty; 1: not an image in a format" in summary


def test_a_closed_pipe_is_no_error_and_the_files_go_on(tmp_path: Path) -> None:
    process = program("explain", many(tmp_path, 12), "--batch-size", 2, "--output", tmp_path / "o")
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["image"] == "000.jpg"
    process.stdout.close()
    with process.stderr as stream:
        said = stream.read()
    assert process.wait() == 0, said
    assert "Traceback" not in said
    assert "Exception" not in said
    assert len(read(tmp_path / "o")) == 12


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full", "2>/dev/full"])
def test_streams_that_cannot_be_written(tmp_path: Path, closed: str) -> None:
    command = f'"{sys.executable}" -m camcli explain "{PHOTOS[0]}" --save boxes {closed}'
    ran = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == int(closed == ">/dev/full"), ran.stderr
    assert "Traceback" not in ran.stderr
    assert "bug" not in ran.stderr
    assert len(read(tmp_path / "camcli-out")) == 1


def test_a_disk_with_no_room_is_one_line(tmp_path: Path) -> None:
    # A limit on the size of files stands for the disk: results.jsonl outgrows it, boxes do not.
    options = '--save "" --target top:40 --output o'
    command = f'ulimit -f 16; "{sys.executable}" -m camcli explain "{SAMPLES}" {options}'
    ran = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1
    said = ran.stderr.splitlines()
    assert said[0] == "camcli: cannot write o/results.jsonl: File too large"
    done = read(tmp_path / "o")  # whole lines only
    assert 0 < len(done) < 4
    assert said[1].startswith(f"{len(done)} image")
    assert said[2] == "results in o"
    assert said[3].endswith("--target top:40 --output o --resume")


def test_a_list_that_is_a_link_is_replaced_not_written_through(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "o" / "results.jsonl").symlink_to(tmp_path / "mine")
    assert cli("explain", PHOTOS[0], "--output", tmp_path / "o", "--overwrite").status == 0
    assert (tmp_path / "mine").read_text() == "mine"
    assert len(read(tmp_path / "o")) == 1


def test_resume_writes_through_no_dangling_link(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "results.jsonl").symlink_to(tmp_path / "nowhere")
    assert cli("explain", PHOTOS[0], "--output", tmp_path / "o", "--resume").status == 0
    assert not (tmp_path / "nowhere").exists()
    assert len(read(tmp_path / "o")) == 1


def test_an_interrupt_leaves_whole_files(tmp_path: Path) -> None:
    process = program(
        *("explain", many(tmp_path, 200), "--batch-size", 1, "--output", tmp_path / "o"),
        preexec_fn=heed_interrupts,
    )
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.strip().endswith("camcli: interrupted; all files written so far are complete")
    assert "Traceback" not in said
    done = read(tmp_path / "o")
    assert 0 < len(done) < 200
    for picture in (tmp_path / "o").glob("*.jpg"):
        size_of(picture)
    assert not list((tmp_path / "o").glob("*.tmp"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["layers"], "bn2"),
        (["layers", "vgg16", "--no-weights"], "features.30"),
        (["layers", "test_vit", "--no-weights", "--all"], "blocks.5.norm1"),
        (["layers", "test_vit", "--no-weights", "--format", "jsonl"], '"block": 5'),
        (["methods"], "tscam"),
        (["methods", "--format", "jsonl"], '"method": "layercam"'),
        (["methods", "gradcam"], "w_k = 1/(H W) sum_ij g_kij"),
        (["models", "deit"], "deit_tiny_patch16_224"),
        (["models", "--loadable"], "tf_efficientnet_lite0  (embedded)"),
        (["doctor"], "ok    embedded weights: tf_efficientnet_lite0, tscam_vit_lite0, vit_lite0"),
    ],
)
def test_the_other_commands(cli: Cli, arguments: list[str], says: str) -> None:
    ran = cli(*arguments)
    assert ran.status == 0, ran.err
    assert says in ran.out


@pytest.mark.parametrize("arguments", [["models", "nothinglikeit"], ["methods", "gradcan"]])
def test_other_commands_used_wrongly(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).status == 2
