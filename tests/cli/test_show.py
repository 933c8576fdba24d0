"""`explain --show`: overlays in a real terminal, and nothing but a line without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Cli
from PIL import Image

if sys.platform == "win32":
    pytest.skip("needs a pseudo-terminal", allow_module_level=True)
pytest.importorskip("pyte")

from terminals import COLORS, COLUMNS, run_in_terminal

from camcli.cli.runners import show_overlays
from camcli.cli.terminal_pictures import TerminalScreen

DRAW = """
import sys
from dataclasses import dataclass, field
from PIL import Image
from camcli.cli.terminal_pictures import open_screen
screen = open_screen()
for path in sys.argv[1:] if screen else ():
    picture = Image.open(path).convert("RGB")
    screen.draw(picture.resize(screen.fit_size(picture.size)), "below \\x1b[31m it")
sys.stderr.write("LOADED" if "textual_image" in sys.modules else "NOT LOADED")
"""


def colors_on(screen: Any, width: int, height: int) -> np.ndarray[Any, Any]:
    """The pixels (height, width, 3) that half blocks show in the first lines of a screen."""
    found = np.zeros((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            cell = screen.buffer[y // 2][x]
            assert cell.data == "▀"
            found[y, x] = tuple(bytes.fromhex(cell.bg if y % 2 else cell.fg))
    return found


@pytest.fixture
def noise_file(tmp_path: Path) -> Path:
    """A picture that fills the width of the screen, with an odd number of rows."""
    path = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (31, COLUMNS, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_every_pixel_has_its_colour(noise_file: Path, tmp_path: Path) -> None:
    ran = run_in_terminal(["-c", DRAW, noise_file], tmp_path, has_pipe=True)
    with Image.open(noise_file) as picture:
        expected = np.asarray(picture)
    np.testing.assert_array_equal(colors_on(ran.screen, COLUMNS, 31), expected)
    assert ran.lines[16] == "below \\x1b[31m it"
    assert ran.lines[17:] == ["NOT LOADED"]  # an import would write to the pipe
    assert ran.out == b""


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (COLORS | {"NO_COLOR": "1"}, "colours, and NO_COLOR forbids them"),
        ({"TERM": "dumb"}, "a terminal with colours, and TERM is dumb"),
        (COLORS | {"PYTHONIOENCODING": "latin-1"}, "UTF-8, and the encoding is iso8859-1"),
    ],
)
def test_a_terminal_that_cannot_show_pictures_is_told(
    noise_file: Path, tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    ran = run_in_terminal(["-c", DRAW, noise_file], tmp_path, variables=variables)
    assert b"\x1b" not in ran.written
    assert " ".join(ran.written.decode().split()) == (
        f"--show needs {reason}; camcli goes on without pictures NOT LOADED"
    )


def answer_sixel(query: bytes) -> bytes:
    return b"\x1b[?62;4c" if b"\x1b[c" in query else b""


def answer_kitty(query: bytes) -> bytes:
    if b"\x1b[c" in query:
        return b"\x1b[?62c"
    asked = re.search(rb"\x1b_Gi=(\d+),[^\x1b]*a=q", query)
    return b"\x1b_Gi=%b;OK\x1b\\" % asked[1] if asked else b""


def answer_nonsense(query: bytes) -> bytes:
    return b"\xff\x1b[?\x1b_G" if b"\x1b[c" in query else b""


@pytest.mark.parametrize(
    ("answer", "start", "expected"),
    [
        (answer_sixel, b"\x1bP", 1),
        (answer_kitty, b"a=p", 1),
        (answer_nonsense, "▀".encode(), 16 * COLUMNS),
    ],
)
def test_pixels_are_shown_where_the_terminal_has_them(
    noise_file: Path, tmp_path: Path, answer: Any, start: bytes, expected: int
) -> None:
    pytest.importorskip("textual_image")
    ran = run_in_terminal(["-c", DRAW, noise_file], tmp_path, answer=answer)
    assert ran.status == 0
    assert ran.written.count(start) == expected
    assert b"LOADED" in ran.written
    assert b"Traceback" not in ran.written


@pytest.mark.parametrize("answer", [answer_sixel, answer_kitty, answer_nonsense])
def test_any_shape_fits_the_screen(answer: Any, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, size in zip(paths, [(3000, 2), (2, 3000), (1, 1), (40, 300)], strict=True):
        Image.new("RGB", size, (200, 10, 10)).save(path)
    ran = run_in_terminal(["-c", DRAW, *paths], tmp_path, answer=answer)
    assert ran.status == 0, ran.written
    if answer is answer_nonsense:
        ends = [number for number, line in enumerate(ran.lines) if line.startswith("below")]
        assert [ends[0], *(b - a for a, b in pairwise(ends))] == [1, 28, 28, 28]


def test_a_run_shows_each_overlay_below_its_row(picture: Path, tmp_path: Path, cli: Cli) -> None:
    command = ["explain", picture, "--method", "gradcam,layercam", "--save", "map,boxes"]
    ran = run_in_terminal(
        ["-m", "camcli", *command, "--show", "--output", "shown"], tmp_path, has_pipe=True
    )
    assert ran.status == 0, ran.written
    assert [json.loads(line)["method"] for line in ran.out.splitlines()] == ["gradcam", "layercam"]
    assert b"\x1b" not in ran.out
    rows = 20  # half of 40: the picture is 120 x 80, the screen 60 wide
    lines = ran.lines
    assert ["▀" * COLUMNS] * rows == lines[:rows] == lines[rows + 1 : 2 * rows + 1]
    for number, method in enumerate(("gradcam", "layercam"), 1):
        assert re.fullmatch(rf"photo.png · .+ 0\.\d\d · {method}", lines[number * (rows + 1) - 1])
    assert lines[2 * rows + 2].startswith("1 image in ")  # no bar is left among them
    plain = cli(*command, "--output", "plain")
    assert plain.out.encode() == ran.out  # no setting and no key differs
    assert cli(*command, "--output", "shown", "--resume").status == 0
    first = colors_on(ran.screen, COLUMNS, 2 * rows).astype(float)
    with Image.open(picture) as photo:
        small = np.asarray(photo.convert("RGB").resize((COLUMNS, 2 * rows)), float)
    corners = np.abs(first - small).mean(axis=2)
    assert corners.max() > 60  # the map
    assert np.median(corners) < 60  # over the photo


def test_without_a_terminal_there_is_one_line_and_no_escape(picture: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "camcli", "explain", picture, "--show", "--save", "boxes"],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"},
    )
    assert ran.returncode == 0
    assert b"\x1b" not in ran.stdout + ran.stderr
    first, *others = ran.stderr.decode().splitlines()
    assert first == (
        "--show needs a terminal, and standard error is a file or a pipe; "
        "camcli goes on without pictures"
    )
    assert [line.split()[0] for line in others] == ["1", "results"]


@dataclass(frozen=True)
class RecordingScreen(TerminalScreen):
    """A screen that keeps what is drawn on it."""

    drawn: list[tuple[tuple[int, int], str]] = field(default_factory=list)

    def draw(self, picture: Image.Image, caption: str) -> None:
        self.drawn.append((picture.size, caption))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> RecordingScreen:
    found = RecordingScreen(40, 20, (40, 40))
    monkeypatch.setattr(show_overlays, "open_screen", lambda: found)
    return found


def test_of_many_classes_the_first_are_shown(
    cli: Cli, picture: Path, screen: RecordingScreen
) -> None:
    ran = cli("explain", picture, "--target", "top:12", "--save", "boxes", "--show")
    assert ran.status == 0, ran.err
    assert "2 more classes of this image are not shown" in ran.err.splitlines()
    classes = [each["class_name"] for each in ran.lines[0]["explanations"]]
    assert [size for size, _ in screen.drawn] == [(40, 27)] * 10
    for name, (_, caption) in zip(classes, screen.drawn, strict=False):
        assert caption.startswith(f"photo.png · {name} 0.")


def test_images_keep_their_order_and_what_fails_shows_nothing(
    cli: Cli, tmp_path: Path, screen: RecordingScreen
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(12):
        Image.effect_noise((30 + number, 20), 90).save(tmp_path / "in" / f"{number:02}.png")
    (tmp_path / "in" / "05.png").write_text("no picture")
    ran = cli("explain", "in", "--show", "--save", "boxes", "--format", "quiet", "--workers", 4)
    assert ran.status == 1
    shown = [caption.partition(".")[0] for _, caption in screen.drawn]
    assert shown == [f"{number:02}" for number in range(12) if number != 5]


def test_a_map_without_an_answer_is_not_drawn(
    cli: Cli, picture: Path, screen: RecordingScreen
) -> None:
    command = ("explain", picture, "--model", "vit_lite0", "--method", "gradcam", "--show")
    ran = cli(*command, "--layers", "blocks.3", "--layers", "blocks.2", "--save", "boxes")
    statuses = [line["explanations"][0]["map_status"] for line in ran.lines]
    assert statuses == ["zero_gradient", "ok"]  # the last block's patches do not reach the class
    assert len(screen.drawn) == 1
