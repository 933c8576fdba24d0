"""Runs in shards, merged: the same bytes as a run in one process."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import timm
import torch
from conftest import Cli, Ran, heed_interrupts, lively
from PIL import Image

import camcli
from camcli.cli.commands import explain
from camcli.io.jsonl import ResultsLog

Go = Callable[..., Ran]
ROOT = Path(camcli.__file__).parent
PHOTO_COUNT = 20


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures of which two are none, and the weights of a network."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "in" / "deep").mkdir(parents=True)
    dice = np.random.default_rng(5)
    for n in range(PHOTO_COUNT):
        pixels = dice.integers(0, 256, (24, 30 + n % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "in" / ("deep" if n % 2 else "") / f"{n:02}.png")
    for name in ("04.png", "deep/11.png"):
        (folder / "in" / name).write_bytes(b"no picture")
    torch.save(lively(timm.create_model("test_resnet", num_classes=4)).state_dict(), folder / "w")
    return folder


@pytest.fixture
def command(inputs: Path, tmp_path: Path) -> tuple[str, ...]:
    shutil.copytree(inputs / "in", tmp_path / "in", copy_function=shutil.copy2)
    model = ("--model", "test_resnet", "--checkpoint", str(inputs / "w"), "--size", "32")
    methods = ("--method", "gradcam", "--method", "layercam")
    return ("explain", "in", *model, *methods, "--save", "array,boxes", "--batch-size", "3")


@pytest.fixture
def go(cli: Cli, command: tuple[str, ...]) -> Go:
    return lambda output, *more: cli(*command, "--output", output, *more)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    schema = json.loads((ROOT / "io/schemas/run.schema.json").read_text())
    jsonschema.validate(found, schema)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def assert_same_run(output: Path, whole: Path) -> None:
    """The same lines and files to the last byte, and the same counts."""
    assert (output / "results.jsonl").read_bytes() == (whole / "results.jsonl").read_bytes()
    assert tree(output) == tree(whole)
    found, wanted = document(output), document(whole)
    assert found["counts"] == wanted["counts"]
    same = ("state", "settings", "model", "methods", "images", "batch_size", "precision")
    assert [found[key] for key in same] == [wanted[key] for key in same]
    assert not (output / "shards").exists()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12])
def test_merged_shards_are_the_run(count: int, go: Go, cli: Cli, tmp_path: Path) -> None:
    assert go("whole").status == 1
    done = [go("o", "--shard", f"{index}/{count}") for index in reversed(range(count))]
    assert {ran.status for ran in done} <= {0, 1}
    folders = sorted((tmp_path / "o" / "shards").iterdir())
    assert folders[-1].name == f"{count - 1:04}-of-{count:04}"
    images = [document(folder)["images"] for folder in folders]
    assert sum(images) == PHOTO_COUNT
    assert images[-1] == {1: 20, 2: 9, 3: 6, 7: 2, 12: 0}[count]  # of 12 shards, 5 are empty
    assert cli("merge", "o").status == 0
    assert_same_run(tmp_path / "o", tmp_path / "whole")
    assert document(tmp_path / "o")["shards"] == {"count": count}
    assert go("o", "--resume").status == 1  # as any other run
    assert tree(tmp_path / "o") == tree(tmp_path / "whole")
    assert document(tmp_path / "o")["counts"]["done_before"] == 18


def test_an_empty_shard_is_a_finished_run(go: Go, tmp_path: Path) -> None:
    for more in ((), ("--resume",), ("--resume", "--format", "table")):
        ran = go("o", "--shard", "11/12", *more)
        assert (ran.status, ran.out) == (0, "")
        assert "this shard has no images" in ran.err
        assert document(tmp_path / "o/shards/0011-of-0012")["state"] == "done"


def leave_as_a_kill_does(folder: Path) -> None:
    """A line is cut off, and run.json still says that the run goes on."""
    log = folder / "results.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    text = (folder / "run.json").read_text()
    (folder / "run.json").write_text(text.replace('"interrupted"', '"running"'))


def test_a_shard_that_is_killed_in_the_middle_is_resumed(
    go: Go, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go("whole")
    go("o", "--shard", "0/2")
    append, lines = ResultsLog.append, 0

    def append_some(*arguments: Any) -> None:
        nonlocal lines
        lines += 1
        if lines == 8:
            raise KeyboardInterrupt
        append(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ResultsLog, "append", append_some)
        assert go("o", "--shard", "1/2").status == 130
    leave_as_a_kill_does(tmp_path / "o/shards/0001-of-0002")
    refused = cli("merge", "o")
    assert refused.status == 2
    found = re.search(r"shard 1 of 2 is not finished; to continue: camcli (.*)", refused.err)
    assert found
    assert go("o", "--shard", "1/2").status == 2  # not without --resume
    assert cli(*found[1].split()).status == 1
    assert cli("merge", "o").status == 0
    assert_same_run(tmp_path / "o", tmp_path / "whole")


def test_a_shard_of_other_images_is_not_resumed(go: Go, tmp_path: Path) -> None:
    go("o", "--shard", "0/2")
    (tmp_path / "in" / "00.png").unlink()
    ran = go("o", "--shard", "0/2", "--resume")
    assert ran.status == 2
    assert "another shard (the number of images, the list of images differs)" in ran.err
    assert go("o", "--shard", "0/2", "--overwrite").status == 1


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "another number": (("--shard", "1/3"), r"holds shards of 2, not of 3"),
    "twice": (("--shard", "0/2"), r"already holds a run.*--resume"),
    "devices of another number": (("--devices", "cpu,cpu,cpu"), r"holds shards of 2, not of 3"),
    "both": (("--shard", "1/2", "--devices", "cpu"), r"cannot be combined"),
    "no such device": (("--devices", "gpu"), r"numbers of GPUs"),
    "a device and devices": (("--devices", "cpu", "--device", "cpu"), r"cannot be combined"),
    "shown": (("--devices", "cpu", "--show"), r"cannot be combined"),
    "a report": (("--shard", "1/2", "--report"), r"use camcli report after camcli merge"),
    "an export": (("--shard", "1/2", "--box-format", "coco"), r"use camcli export after"),
    "measured precision": (("--shard", "1/2", "--precision", "auto"), r"name fp32 or bf16"),
    "a shared scale": (("--devices", "cpu", "--scale", "run"), r"give the range as LOW\.\.HIGH"),
    "a share of failures": (("--max-failures", "101%"), r"--max-failures 101%: write a number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_part_cannot_do_is_refused(case: str, cli: Cli, inputs: Path) -> None:
    shutil.copytree(inputs / "in", "in")
    Path("o/shards/0000-of-0002").mkdir(parents=True)
    Path("o/shards/0000-of-0002/results.jsonl").touch()
    more, message = REFUSED[case]
    ran = cli("explain", "in", "--output", "o", *more)
    assert ran.status == 2
    assert re.search(message, ran.err)
    assert len(ran.err.strip().splitlines()) == 1


def test_a_sheet_and_a_run_without_a_folder_are_refused(cli: Cli, inputs: Path) -> None:
    folder = inputs / "in"
    assert "--shard needs --output" in cli("explain", folder, "--shard", "0/2").err
    sheet = cli("explain", folder, "--shard", "0/2", "--output", "o", "--save", "sheet")
    assert (sheet.status, "camcli figure" in sheet.err) == (2, True)


def test_a_whole_run_takes_no_shards(go: Go) -> None:
    go("o")
    for more in (("--shard", "0/2"), ("--devices", "cpu")):
        for way in ((), ("--resume",)):
            ran = go("o", *more, *way)
            assert ran.status == 2
            assert "already holds a whole run" in ran.err


def test_a_merge_that_was_cut_off_comes_first(go: Go, tmp_path: Path) -> None:
    go("o", "--shard", "0/2")
    (tmp_path / "o" / "shards" / "merge.jsonl").write_text('{"merging": 2}\n')
    ran = go("o", "--shard", "0/2", "--resume")
    assert ran.status == 2
    assert "to continue: camcli merge o" in ran.err


def test_a_scheduler_names_the_shard(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert go("o", "--shard", "auto").status in (0, 1)
    assert document(tmp_path / "o/shards/0001-of-0004")["shard"]["index"] == 1


def test_a_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from camcli.cli.shard_arguments import Sharing, choose_local_device
    from camcli.core.shards import Shard
    from camcli.review.diff.diff_limits import Allowance

    part, whole = Sharing(Shard(1, 8), (), Allowance()), Sharing(None, (), Allowance())
    monkeypatch.setenv("LOCAL_RANK", "5")
    for count, device in ((0, "auto"), (1, "auto"), (4, "cuda:1"), (8, "cuda:5")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert choose_local_device("auto", part) == device
    assert choose_local_device("cpu", part) == "cpu"
    assert choose_local_device("auto", whole) == "auto"


def test_sharing_is_no_setting_of_the_results() -> None:
    assert {"shard", "devices", "max_failures"} <= explain.NON_RESULT_OPTIONS


@pytest.mark.parametrize(
    ("limit", "status"), [("0", 1), ("1", 1), ("2", 0), ("9%", 1), ("10%", 0), ("100%", 0)]
)
def test_some_images_may_fail(limit: str, status: int, go: Go) -> None:
    assert go("o", "--max-failures", limit).status == status  # 2 of 20 images are none


def test_a_failed_image_counts_once_for_two_methods(go: Go, cli: Cli, tmp_path: Path) -> None:
    """A map of one value is no answer; both methods tell so of the same image."""
    Image.new("RGB", (8, 8)).save(tmp_path / "in" / "00.png")
    more = ("--save", "boxes", "--target", "0")
    ran = cli("explain", "in/00.png", "--output", "p", "--max-failures", "1", *more)
    assert ran.status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="sends signals to processes")
class TestDevices:
    """`--devices cpu,cpu`: the processes are real ones."""

    def test_they_make_the_run(self, go: Go, tmp_path: Path) -> None:
        alone = go("whole", "--report", "--format", "jsonl", "--box-format", "coco")
        ran = go("o", "--devices", "cpu,cpu", "--report", "--box-format", "coco")
        assert (ran.status, alone.status) == (1, 1)
        assert ran.lines == alone.lines
        for page in (tmp_path / "o", tmp_path / "whole"):
            assert (page / "report.html").stat().st_size > 1000
            (page / "report.html").unlink()
        assert "in/04.png: not an image" in ran.err
        assert_same_run(tmp_path / "o", tmp_path / "whole")

    def test_a_process_that_ends_ends_the_run(self, go: Go, tmp_path: Path) -> None:
        ran = go("o", "--devices", "0", "--max-failures", "100%")
        if torch.cuda.is_available():
            pytest.skip("device 0 works here")
        assert ran.status == 2
        first, *_, last = ran.err.strip().splitlines()
        assert "shard 0000-of-0001 ended with exit status 2: --device cuda" in first
        assert last.startswith("camcli: failed; to continue: camcli explain --resume in")
        assert not (tmp_path / "o" / "results.jsonl").exists()

    def test_an_interrupt_reaches_all_and_the_run_goes_on(
        self, command: tuple[str, ...], go: Go, cli: Cli, tmp_path: Path
    ) -> None:
        slow = ("--smooth", "noise:30", "--devices", "cpu,cpu", "--format", "quiet")
        run = [sys.executable, "-m", "camcli", *command, "--output", "o", *slow]
        path = os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")])
        options: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": path}}
        with subprocess.Popen(
            run, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts, **options
        ) as process:
            end = time.monotonic() + 60
            while not [*tmp_path.glob("o/shards/*/*.npz")] and process.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        assert process.returncode == 130
        assert "interrupted; to continue: camcli explain --resume in" in err
        folders = [path.parent for path in tmp_path.glob("o/shards/*/run.json")]
        assert folders
        assert {document(folder)["state"] for folder in folders} <= {"interrupted", "done"}
        for shard in ("0/2", "1/2"):
            assert go("o", *slow[:2], "--shard", shard, "--resume").status == 1
        assert cli("merge", "o").status == 0
        go("whole", *slow[:2])
        assert_same_run(tmp_path / "o", tmp_path / "whole")
