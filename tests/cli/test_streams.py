"""Standard streams that are closed or full, and what is said once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PHOTOS, Cli
from PIL import Image

from camcli.cli.problem_lines import ProblemLines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full and a shell")
CAMCLI = f'"{sys.executable}" -m camcli'


def shell(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", ["--help", "--version", "", "explain --help", "methods"])
def test_a_full_disk_is_one_line_and_status_1(tmp_path: Path, arguments: str) -> None:
    ran = shell(tmp_path, f"{CAMCLI} {arguments} > /dev/full")
    assert ran.returncode == 1
    assert ran.stderr.startswith("camcli: cannot write")
    assert ran.stderr.endswith(": No space left on device\n")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["explain", "compare"])
@pytest.mark.parametrize("stdin", ["<&-", "< /dev/null"])
def test_a_list_that_is_closed_or_empty_is_wrong_usage(
    tmp_path: Path, command: str, stdin: str
) -> None:
    ran = shell(tmp_path, f"{CAMCLI} {command} - {stdin}")
    assert ran.returncode == 2
    assert ran.stderr.startswith("camcli: the list on standard input is empty: ")


def test_with_every_stream_closed_the_files_are_those_of_any_run(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(noise).save(tmp_path / "in" / "d.tiff", compression="tiff_lzw")
    raw = bytearray((tmp_path / "in" / "d.tiff").read_bytes())
    for place in range(200, 3000, 7):
        raw[place] ^= 0x5A
    (tmp_path / "in" / "d.tiff").write_bytes(raw)  # libtiff writes to descriptor 2 about it
    frames = [Image.open(PHOTOS[0]).resize((60, 40)), Image.new("RGB", (60, 40))]
    frames[0].save(tmp_path / "in" / "m.gif", save_all=True, append_images=frames[1:])
    command = f"{CAMCLI} explain in --save boxes --output o <&- >&- 2>&-"
    ran = shell(tmp_path, command)
    assert ran.returncode == 1
    lines = [json.loads(line) for line in (tmp_path / "o/results.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["failed", "ok"]
    assert lines[0]["error"] == "decoder error -2 (Using code not yet in table)"
    assert lines[1]["has_more_frames"] is True
    again = shell(tmp_path, f"{CAMCLI} explain in --save boxes --output o --resume --format quiet")
    assert "1 done before" in again.stderr
    assert "only the first frame or page of 1" in again.stderr


def test_equal_problems_are_said_once_with_a_count(capsys: pytest.CaptureFixture[str]) -> None:
    problems = ProblemLines()
    for n in range(42):
        problems.print_problem(f"{n}.jpg", "no class 'x'")
    problems.print_problem("a.jpg", "the file is empty")
    for label in ("cat", "dog"):  # two maps of one image
        problems.print_problem("b.jpg", f"no map (m of {label})", kind="no map (m)")
    problems.print_problem("c.jpg", "no map (m of cat)", kind="no map (m)")
    problems.print_repeats("o/results.jsonl")
    assert capsys.readouterr().err.splitlines() == [
        "camcli: 0.jpg: no class 'x'",
        "camcli: a.jpg: the file is empty",
        "camcli: b.jpg: no map (m of cat)",
        "camcli: 41 more images: no class 'x' (1.jpg, 2.jpg, 3.jpg, …; all are in o/results.jsonl)",
        "camcli: 1 more image: no map (m) (c.jpg)",
    ]


def test_a_limit_of_pixels_fails_one_image_and_a_higher_one_resumes(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("L", (200, 100)).save(tmp_path / "in" / "large.png")
    Image.open(PHOTOS[0]).resize((50, 40)).save(tmp_path / "in" / "small.png")
    command = ("explain", "in", "--save", "boxes", "--format", "jsonl")
    ran = cli(*command, "--max-pixels", 10_000)
    assert ran.status == 1
    assert [line["status"] for line in ran.lines] == ["failed", "ok"]
    assert ran.lines[0]["error"].startswith("it has 20000 pixels (200 x 100), more than 10000; ")
    ran = cli(*command, "--max-pixels", 20_000, "--resume")
    assert [line["image"] for line in ran.lines] == ["large.png"]
    assert cli(*command, "--max-pixels", 10**9).status == 2
