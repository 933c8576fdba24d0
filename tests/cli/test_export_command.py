"""`camcli export` and `--box-format`: what they print, refuse and leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SAMPLES, Cli
from stored_runs import result_line, write_run

from camcli.cli.commands import explain
from camcli.evaluation.datasets.annotations import Annotation
from camcli.evaluation.datasets.coco import read_coco
from camcli.review.stored_run import open_run

PROGRAM = """
import sys
from camcli.cli.app import main
status = main()
heavy = sorted({"torch", "timm", "matplotlib", "numpy", "PIL", "scipy"} & set(sys.modules))
sys.stderr.write(f"STATUS {status} HEAVY {heavy}")
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", result_line())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["coco", "yolo", "voc", "label-studio"])
def test_an_export_imports_nothing_heavy(run: Path, name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "export", str(run), "--to", name],
        capture_output=True,
        text=True,
        check=False,
    )
    status = 1 if name == "yolo" else 0  # its image is missing
    assert ran.stderr.endswith(f"STATUS {status} HEAVY []")


def test_the_last_line_says_what_was_written(cli: Cli, run: Path) -> None:
    ran = cli("export", run, "--to", "coco")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err == f"1 box, 1 class, 1 image in {run}/export-coco\n"


def test_what_is_left_out_gives_status_1(cli: Cli, run: Path) -> None:
    ran = cli("export", run, "--to", "yolo")
    assert ran.status == 1
    assert ran.err.startswith("camcli: 1 image not found")


def test_problems_of_the_run_are_told(cli: Cli, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "{", result_line(), state="running")
    err = cli("export", run, "--to", "voc").err
    assert "its state is running" in err
    assert "1 line is damaged" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--to", "cocoa"), "--to cocoa: no such format; did you mean coco? (choose from coco, "),
        (("--to", "voc", "--masks", "rle"), "--masks works with --to coco; omit it"),
        (("--to", "voc", "--categories", "a.json"), "--categories works with --to coco; omit it"),
        (("--to", "coco", "--conf"), "--conf works with --to yolo; omit it"),
        (("--to", "coco", "--output", "boxes.json"), "name a folder"),
        (("--to", "coco", "--method", "gradcan"), "did you mean gradcam?; the run has gradcam"),
        (("--to", "coco", "--categories", "a.json"), "a.json: No such file"),
        (("--to", "coco", "--masks", "rle"), "repeat it with --save mask"),
        ((), "--to"),
    ],
)
def test_wrong_usage_is_one_line(
    cli: Cli, run: Path, arguments: tuple[str, ...], says: str
) -> None:
    ran = cli("export", run, *arguments)
    assert ran.status == 2
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1
    assert not list(run.glob("export-*"))


def test_a_second_export_needs_overwrite(cli: Cli, run: Path) -> None:
    assert cli("export", run, "--to", "coco").status == 0
    again = cli("export", run, "--to", "coco")
    assert again.status == 2
    assert "add --overwrite" in again.err
    assert cli("export", run, "--to", "coco", "--overwrite").status == 0


def test_a_link_in_a_strange_run_is_not_followed(cli: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (run / "export-coco").symlink_to(tmp_path / "outside")
    assert "is a link; name a folder" in cli("export", run, "--to", "coco").err
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("masks", ["none", "polygons"])
def test_the_method_that_made_the_boxes_finds_them_again(
    cli: Cli, tmp_path: Path, masks: str
) -> None:
    cli("explain", SAMPLES, "--save", "mask", "--output", "run", "--box-format", "coco")
    if masks != "none":
        assert cli("export", "run", "--to", "coco", "--masks", masks, "--overwrite").status == 0
    annotations = tmp_path / "run" / "export-coco" / "annotations.json"
    ran = cli(
        *("evaluate", "localization", SAMPLES, "--annotations", annotations),
        *("--method", "gradcam", "--output", "eval", "--resamples", "2"),
    )
    assert ran.status == 0, ran.err
    values = {line["method"]: line["metrics"]["gt_known"]["value"] for line in ran.lines}
    assert values["gradcam"] == 1.0
    assert values["random"] < 1.0
    found = {
        a.image_name: a.boxes for a in read_coco(annotations, SAMPLES) if isinstance(a, Annotation)
    }
    assert found == {
        result.image: tuple((b.x1, b.y1, b.x2, b.y2) for b in result.explanations[0].boxes)
        for result in open_run(tmp_path / "run")
    }


def test_a_box_format_exports_each_method(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli(
        *("explain", picture, "--method", "gradcam,layercam", "--save", "boxes"),
        *("--output", "run", "--box-format", "yolo"),
    )
    assert ran.status == 0
    for method in ("gradcam", "layercam"):
        folder = tmp_path / "run" / "export-yolo" / method
        assert len((folder / "labels/train/photo.txt").read_text().splitlines()) == 1
        assert (folder / "images/train/photo.png").samefile(picture)
        assert f"in run/export-yolo/{method}\n" in ran.err
    assert len(list((tmp_path / "run").glob("*.boxes.json"))) == 2


def test_a_box_format_is_no_setting_of_the_results(cli: Cli, picture: Path, tmp_path: Path) -> None:
    command = ("explain", picture, "--save", "boxes", "--output", "run")
    cli(*command)
    before = (tmp_path / "run" / "results.jsonl").read_bytes()
    assert "box_format" not in read_json(tmp_path / "run" / "run.json")["settings"]
    ran = cli(*command, "--box-format", "voc", "--resume")
    assert ran.status == 0
    assert "1 done before" in ran.err
    assert (tmp_path / "run" / "results.jsonl").read_bytes() == before
    assert (tmp_path / "run" / "export-voc" / "Annotations" / "photo.xml").is_file()
    assert "box_format" in explain.NON_RESULT_OPTIONS


def test_a_box_format_needs_boxes(cli: Cli, picture: Path) -> None:
    ran = cli("explain", picture, "--threshold", "none", "--box-format", "coco")
    assert ran.status == 2
    assert "--threshold none leaves no boxes for --box-format" in ran.err


def test_an_export_that_fails_leaves_the_run(cli: Cli, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "export-voc").write_text("mine")
    ran = cli("explain", picture, "--save", "boxes", "--output", "run", "--box-format", "voc")
    assert ran.status == 1
    assert "is not a folder" in ran.err
    assert read_json(tmp_path / "run" / "run.json")["state"] == "done"
