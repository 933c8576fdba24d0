"""Thousands of broken, lying and oddly named files in one run: each is answered, none does harm."""

from __future__ import annotations

import faulthandler
import gc
import io
import json
import os
import random
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, Cli, lively
from PIL import Image

from camcli.cli import input_sources
from camcli.core.errors import ImageError, to_one_line
from camcli.io import discovery as sources
from camcli.io import images

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, calls find")

SUFFIXES = ("jpg", "png", "gif", "webp", "tiff", "bmp", "ppm", "avif", "jp2")
NUMBERS = (b"\0\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x80\0\0\0")
ODD = "-rf --help %s%n % a\nb a\rb a\tb \x1b[2J\x1b]0;t\x07 \x9b31m \x7f \x0c \u2028 \u202egpj"
ODD += " \ufeff e\u0301 🙈 a. a.. [x] * ? {} ~ $(id) `id` ' \" ; a\\b CON \udcff\udcfe \udced\udca0"
ODD_NAMES = [*ODD.split(" "), " ", "x" * 251, "🙈" * 62 + "abc"]
DEEP = f"{'/'.join(['d' * 200] * 19)}/{'e' * 200}.jpg"  # almost as long as a path can be
LINKS = {"zero.jpg": "/dev/zero", "full.jpg": "/dev/full", "memory.jpg": "/proc/self/mem"}
LINKS |= {"loop.jpg": "loop.jpg", "dangling.jpg": "none", "up.jpg": ".."}
READERS: dict[str, Callable[[io.BytesIO], object]] = {
    ".json": json.load,
    ".npz": lambda raw: [*np.load(raw).values()],
    ".jpg": lambda raw: Image.open(raw).load(),
}
Command = tuple[object, ...]


def encoded(image: Image.Image, suffix: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix.upper()), **options)
    return buffer.getvalue()


def piece(dice: random.Random, mode: str = "RGB", size: tuple[int, int] = (50, 42)) -> Image.Image:
    """A small part of a photograph, in modes too that convert() does not know."""
    with Image.open(dice.choice(PHOTOS)) as photo:
        x, y = dice.randrange(200), dice.randrange(150)
        part = photo.crop((x, y, x + size[0], y + size[1]))
    if mode == "I;16":
        return Image.fromarray(np.asarray(part.convert("L")).astype(np.uint16) * 257)
    return Image.frombytes(mode, size, part.tobytes()) if mode == "LAB" else part.convert(mode)


def whole_files(dice: random.Random) -> Iterator[tuple[str, bytes]]:
    moving: dict[str, Any] = {"save_all": True, "append_images": [piece(dice), piece(dice)]}
    for suffix in SUFFIXES:
        yield f"plain.{suffix}", encoded(piece(dice), suffix)
        if suffix in ("gif", "png", "webp", "tiff"):
            yield f"moving.{suffix}", encoded(piece(dice), suffix, **moving)
    for mode in ("1", "LA", "P", "I;16", "F", "CMYK", "LAB", "YCbCr", "RGBA"):
        yield f"{mode}.tiff", encoded(piece(dice, mode), "tiff")
        if mode in ("1", "LA", "P", "I;16", "RGBA"):
            yield f"{mode}.png", encoded(piece(dice, mode), "png")
    for packing in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits"):
        yield f"{packing}.tiff", encoded(piece(dice), "tiff", compression=packing)
    for size in ((1, 60), (60, 1), (1, 1)):
        yield f"{size}.png", encoded(piece(dice, size=size), "png")
    yield "ink.jpg", encoded(piece(dice, "CMYK"), "jpg", progressive=True)


def mutant(raw: bytes, other: bytes, dice: random.Random) -> bytes:
    """Changed in one way of several, often in its header."""
    ends = (min(64, len(raw)), *[len(raw)] * 3)
    a, b, c = sorted(dice.randrange(dice.choice(ends)) for _ in range(3))
    number, flipped = dice.choice(NUMBERS), bytearray(raw)
    for _ in range(dice.choice((1, 3, 30))):
        flipped[dice.randrange(dice.choice(ends))] = dice.randrange(256)
    ways = [bytes(flipped), raw[:a], raw[:a] + raw[b:], raw[:a] + raw[b:c] + raw[a:b] + raw[c:]]
    ways += [raw[:b] + raw[a:b] * dice.choice((1, 2, 100)) + raw[b:], raw[:a] + other[b:]]
    return dice.choice([*ways, raw[:a] + number + raw[a + len(number) :]])


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(*chunks: bytes, side: int = 8, colour: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def tiff(side: int = 4, more: tuple[int, int, int, int] = (258, 3, 1, 8), after: int = 0) -> bytes:
    """A grey picture of (tag, type, count, value); `after` is where the next one should be."""
    plain = ((256, side), (257, side), (259, 1), (262, 1), (273, 8), (278, side), (279, side))
    entries = b"".join(struct.pack("<HHII", *e) for e in (*((t, 4, 1, v) for t, v in plain), more))
    return b"II*\0\x08\0\0\0\x08\0" + entries + struct.pack("<I", after) + bytes(100)


def lies(dice: random.Random) -> list[bytes]:
    """Files that say of themselves what is not so."""
    jpeg, still = (encoded(piece(dice), suffix) for suffix in ("jpg", "gif"))
    junk, size = dice.randbytes(300), jpeg.index(b"\xff\xc0") + 5
    dots, bomb = chunk(b"IDAT", zlib.compress(bytes(72))), b"a\0\0" + zlib.compress(bytes(10**8))
    frames, clear = chunk(b"acTL", b"\0\1\0\0\0\0\0\0"), chunk(b"tRNS", bytes(999))
    made = [png(dots, side=60000), png(dots, side=0), png(), png(dots, colour=3), png(clear, dots)]
    made += [png(chunk(b"zTXt", bomb), dots), png(chunk(b"iCCP", bomb), dots), png(frames, dots)]
    made += [png(dots, frames), png(chunk(b"PLTE", b"abcd"), clear, dots, colour=3)]
    made += [tiff(60000), tiff(0), tiff(after=8), tiff(after=2**32 - 1), tiff(4, (330, 4, 1, 8))]
    made += [tiff(more=(tag, 4, count, count)) for tag in (273, 700, 34665) for count in (8, 2**31)]
    made += [b"II*\0\xff\xff\xff\xff", b"II+\0\x08\0\0\0" + b"\xff" * 8, b"II*\0\4\0\0\0" * 9]
    made += [b"P6 60000 60000 255\n", b"P6 " + b"9" * 5000, b"P6 -5 5 255\n", b"P6\n#" + junk * 999]
    made += [b"P6 \x1b]0;x\x07\x9b31mxx\n 5 255\n", b"P6 5 5 0\n", b"P3 5 5 255\nred\x1b[2J\n"]
    made += [still[:6] + side * 2 + still[10:] for side in (b"\0\0", b"\x60\xea", b"\1\0")]
    made += [still[:-1] + (b"," + bytes(9) + b"\2\2\x44\1\0") * 10**5 + b";", bytes(10**5), b""]
    made += [jpeg[:size] + b"\xea\x60\xea\x60" + jpeg[size + 4 :], jpeg[:2] * 1000 + jpeg]
    made += [jpeg[:2] + b"\xff\xdb\0\0" * 50 + jpeg[2:], jpeg + bytes(10**6)]
    made += [encoded(piece(dice), "jpg", exif=b"Exif\0\0II*\0" + junk, icc_profile=junk)]
    return [*made, encoded(piece(dice), "webp", icc_profile=junk), b"%!PS-Adobe-3.0 EPSF-3.0\n"]


def write_corpus(folder: Path) -> list[str]:
    """Files of every kind in a folder, and what else can bear a picture's name there."""
    dice = random.Random(7)
    files = {f"whole/{name}": raw for name, raw in whole_files(dice)}
    whole, good = [*files.items()], files["whole/plain.jpg"]
    for n in range(2400):
        name, raw = whole[n % len(whole)]
        kind = dice.choice(SUFFIXES) if n % 5 == 0 else name.rpartition(".")[2]
        files[f"mutants/{n}.{kind}"] = mutant(raw, dice.choice(whole)[1], dice)
    files |= {f"lies/{n}.jpg": raw for n, raw in enumerate(lies(dice))}
    files |= {f"names/{name}.jpg": good for name in ODD_NAMES}
    files |= {f"broken/{name}.jpg": b"no picture" for name in ODD_NAMES}
    files |= {DEEP: good, f"{'n/' * 1200}a.jpg": b"not found by whoever recurses"}
    for path, raw in ((folder / name, raw) for name, raw in files.items()):
        for parent in () if path.parent.is_dir() else reversed(path.parents):
            parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    (folder / "odd" / "folder.jpg").mkdir(parents=True)
    for name, target in LINKS.items():
        (folder / "odd" / name).symlink_to(target)
    os.mkfifo(folder / "odd" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "odd" / "socket.jpg"))
    odd = [f"odd/{name}" for name in (*LINKS, "pipe.jpg", "socket.jpg") if name != "up.jpg"]
    return [str(folder / name) for name in (*files, *odd)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """A hang ends the process; a tree too deep for shutil does not outlive its test."""
    faulthandler.dump_traceback_later(180, exit=True)
    (tmp_path / "in").mkdir()
    yield Path("in")
    faulthandler.cancel_dump_traceback_later()
    subprocess.run(["rm", "-rf", tmp_path / "in"], check=True)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    network = lively(timm.create_model("test_resnet", num_classes=4))
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    model = ("--model", "test_resnet", "--checkpoint", tmp_path / "resnet.pth", "--size", "32")
    return ("explain", *model, "--save", "overlay,boxes,array", "--batch-size", "32")


def held() -> tuple[int, int, bytes]:
    """Open files, threads, and all that lies here but for results, whatever its name."""
    gc.collect()
    wanted = "find . -mindepth 1 -name camcli-out -prune -o -printf %p|%y|%s|%T@|%l\\0"
    tree = subprocess.check_output(wanted.split())
    return len([*Path("/proc/self/fd").iterdir()]), threading.active_count(), tree


def read(said: str) -> dict[str, dict[str, Any]]:
    """A run's lines by path: one each, failures named, and of files all that is there."""
    output, files = Path("camcli-out"), ["results.jsonl", "run.json"]
    lines = [json.loads(line) for line in (output / files[0]).read_text().split("\n")[:-1]]
    for line in lines:
        files += [f for e in line.get("explanations", ()) for f in e["files"].values()]
        if line["status"] != "ok":
            assert line["status"] == "failed"
            assert line["error"].strip()
            assert line["error"] == to_one_line(line["error"])
            named = f"camcli: {to_one_line(line['path'])}: "[:1490] in said  # they are cut off
            assert named or re.search(rf" more images?: {re.escape(line['error'])}", said)
    assert sorted(files) == sorted(
        str(p.relative_to(output)) for p in output.rglob("*") if not p.is_dir()
    )
    for file in files[2:]:
        assert READERS[Path(file).suffix](io.BytesIO((output / file).read_bytes()))
    assert all(text == to_one_line(text) for text in said.split("\n"))
    assert not re.search("a bug in camcli|Traceback", said)
    assert len({line["path"] for line in lines}) == len(lines)
    return {line["path"]: line for line in lines}


def test_thousands_of_hostile_files_are_each_answered_once(
    cli: Cli, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write_corpus(folder)
    here = Path.cwd()
    names = (".jpg", "..jpg", "...jpg", "x.jpg.", "x.jpg ", "-", "x", "a\rb")
    listed = [f"../{here.name}/in/odd/x", *(f"in/odd/{name}" for name in names), f"{here}/in/odd/y"]
    for path in listed:
        Path(path).write_bytes((folder / "whole" / "plain.jpg").read_bytes())
    listed += ["/dev/zero", "/dev/full", "none.jpg", "z" * 5000, "in/odd/up.jpg/none", "--help"]
    twice = f"{here}/in/whole/plain.gif"
    stdin = io.BytesIO(b"\0".join(map(os.fsencode, [*listed, twice])))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin, encoding="utf-8"))
    cli(*command, "in/whole", "--output", "first")  # which loads what stays loaded
    before, most = held(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = cli(*command, "in", "-")
    assert ran.status == 1
    assert held() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 1_500_000  # KiB
    lines = read(ran.err)
    assert len(lines) > 2000
    assert set(lines) == {*expected, *listed}
    good = [path for path in expected if path.startswith(("in/whole", "in/names"))]
    assert {lines[path]["status"] for path in good} == {"ok"}


def test_what_changes_after_it_was_listed_fails_alone(
    cli: Cli, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "pipe", "stays"):
        piece(random.Random(1)).save(folder / f"{name}.png")
    find = sources.find_image_sources

    def find_and_change(*given: Any, **options: Any) -> list[sources.SourceOrFailure]:
        found = find(*given, **options)
        (folder / "gone.png").unlink()
        (folder / "pipe.png").unlink()
        os.mkfifo(folder / "pipe.png")
        return found

    monkeypatch.setattr(input_sources, "find_image_sources", find_and_change)
    lines = read(cli(*command, folder).err)
    reasons = ["No such file or directory", "not a regular file", None]
    assert [line.get("error") for line in lines.values()] == reasons


def test_what_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").write_text("no picture")
    formats = images._list_supported_formats()

    def formats_of_what_is_gone() -> tuple[str, ...]:
        (tmp_path / "gone.jpg").unlink()
        return formats

    monkeypatch.setattr(os.path, "isfile", lambda _: True)  # as they were when that was asked
    monkeypatch.setattr(images, "_list_supported_formats", formats_of_what_is_gone)
    for name, says in {"pipe": "not a regular file", "gone": "not an image"}.items():
        with pytest.raises(ImageError, match=says):
            images.load_image(tmp_path / f"{name}.jpg")


@pytest.mark.parametrize("output", ["/dev/null/x", "loop", "loop/x"])
def test_results_that_have_no_place_are_one_line(cli: Cli, command: Command, output: str) -> None:
    Path("loop").symlink_to("loop")
    ran = cli(*command, PHOTOS[0], "--output", output)
    assert ran.status == 2
    assert ran.err.startswith(f"camcli: cannot write to {output}: ")
    assert ran.err.count("\n") == 1


def test_names_in_a_list_may_hold_what_ends_lines_elsewhere() -> None:
    assert sources.parse_path_list("a\x0cb\n\u2028\x85.jpg\r\n") == ["a\x0cb", "\u2028\x85.jpg"]
