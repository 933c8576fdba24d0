"""What a notebook shows of a run's folder: small, self-contained, and never what a name says."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stored_runs import result_line, write_run

import camcli
from camcli.review import notebook_view

EVIL = '"><script>alert(1)</script><img src=x onerror="alert(2)">\u202egpj.exe\n\x1b[31m'


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open += [] if tag in ("img", "br") else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.tags if tag == "img"]
        assert all(source.startswith("data:image/") for source in sources)
        contents = [base64.b64decode(source.partition(";base64,")[2]) for source in sources]
        found: list[Image.Image] = [Image.open(BytesIO(content)) for content in contents]
        for picture, source in zip(found, sources, strict=True):
            assert f"data:image/{str(picture.format).lower()};" in source
        return found


def save_picture(path: Path, kind: str = "JPEG", size: tuple[int, int] = (8, 6)) -> str:
    Image.new("RGB", size, (200, 30, 30)).save(path, kind)
    return path.name


def with_files(**files: str) -> dict[str, Any]:
    return result_line(explanation={"files": files})


def show(run: camcli.StoredRun) -> Page:
    return Page(run._repr_html_())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_picture_of_a_result_is_part_of_the_page(tmp_path: Path, kind: str) -> None:
    name = save_picture(tmp_path / "a.overlay", kind)
    (result,) = run = camcli.open_run(write_run(tmp_path, with_files(overlay=name, map="a.png")))
    for page in (show(run), Page(result._repr_html_())):
        (picture,) = page.pictures
        assert picture.size == (8, 6)
        assert "tabby 0.50" in page.text
        assert "a.jpg · gradcam · last" in page.text
        assert "1 box" in page.text


def test_names_are_text_in_every_place(tmp_path: Path) -> None:
    save_picture(tmp_path / "o.jpg")
    evil = {"class_name": EVIL, "map_status": EVIL, "files": {"overlay": "o.jpg", "map": EVIL}}
    lines = [
        result_line(image=EVIL, method=EVIL, model=EVIL, layers=[EVIL], explanation=evil),
        result_line(explanation={"files": {"map": EVIL}, "against": [{"class_name": EVIL}]}),
        {"image": EVIL, "path": EVIL, "status": "failed", "error": EVIL},
    ]
    run = camcli.open_run(write_run(tmp_path, *lines, state=EVIL))
    page = show(run)
    assert {tag for tag, _ in page.tags} == {"div", "p", "b", "br", "img"}
    assert all({*names} <= {"style", "src", "alt"} for _, names in page.tags)
    assert "<script>alert(1)" in page.text
    for text in (page.text, repr(run), repr(list(run)), run.summary().replace("\n", "")):
        assert text.isprintable()


def test_files_outside_the_folder_are_never_read(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    secret = save_picture(tmp_path / "secret.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / secret)
    (folder / "linked").symlink_to(tmp_path)
    names = [f"../{secret}", str(tmp_path / secret), "link.jpg", f"linked/{secret}", "\0.jpg"]
    run = camcli.open_run(write_run(folder, *(with_files(overlay=name) for name in names)))
    assert len(run) == 5
    assert show(run).pictures == []


def test_what_is_no_small_picture_is_named_only(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size > notebook_view.MAX_PICTURE_BYTES
    (tmp_path / "program.jpg").write_text("<svg onload='alert(1)'/>")
    (tmp_path / "sound.webp").write_bytes(b"RIFF\0\0\0\0WAVE")
    (tmp_path / "folder.jpg").mkdir()
    names = ["large.png", "program.jpg", "sound.webp", "folder.jpg", "missing.jpg"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
        names.append("pipe.jpg")
    page = show(camcli.open_run(write_run(tmp_path, *(with_files(overlay=name) for name in names))))
    assert page.pictures == []
    assert all(name in page.text for name in names)


def test_the_next_kind_takes_the_place_of_a_missing_picture(tmp_path: Path) -> None:
    save_picture(tmp_path / "m.png", "PNG", (7, 7))
    run = camcli.open_run(write_run(tmp_path, with_files(overlay="gone.jpg", map="m.png")))
    assert [picture.size for picture in show(run).pictures] == [(7, 7)]


def test_a_large_run_shows_a_few_pictures(tmp_path: Path) -> None:
    name = save_picture(tmp_path / "o.jpg")
    several = result_line()["explanations"][0] | {"files": {"overlay": name}}
    lines = [result_line(image=f"{n}.jpg", explanations=[several] * 50) for n in range(40)]
    page = show(camcli.open_run(write_run(tmp_path, *lines)))
    assert len(page.pictures) == notebook_view.MAX_PICTURES
    assert "the first 12 results" in page.text
    assert "38 more classes" in page.text
    assert "12.jpg" not in page.text


def test_a_map_without_an_answer_says_why(tmp_path: Path) -> None:
    blank: dict[str, Any] = {"map_status": "zero_gradient", "boxes": [], "score": None}
    run = camcli.open_run(write_run(tmp_path, result_line(explanation=blank)))
    assert "no map: the gradient is zero here" in show(run).text
    assert repr(list(run)) == "[StoredResult('a.jpg', gradcam: tabby, zero_gradient)]"


def test_the_summary_and_the_names_in_python(tmp_path: Path) -> None:
    failed = {"image": "b.jpg", "path": "b.jpg", "status": "failed", "error": "truncated"}
    lines = [result_line(), result_line(method="layercam"), failed]
    run = camcli.open_run(write_run(tmp_path, *lines, state="stopped"))
    assert run.summary().splitlines() == [
        f"{tmp_path}: 1 image, 2 results, gradcam, layercam, net, 1 failed",
        "the run is not complete: its state is stopped",
    ]
    assert repr(run) == f"StoredRun({run.summary().splitlines()[0]})"
    assert repr(run.results[0]) == "StoredResult('a.jpg', gradcam: tabby 0.50, ok, 1,2-30,20)"
    assert repr(run.filter(lambda _: False)).endswith(": 0 images, 0 results, 1 failed)")
    assert Page(run.filter(lambda _: False)._repr_html_()).pictures == []


def test_a_run_is_opened_without_heavy_packages(tmp_path: Path) -> None:
    write_run(tmp_path, result_line())
    program = (
        "import sys, camcli; run = camcli.open_run('.'); len(run._repr_html_()); repr(run); "
        "print({'torch', 'numpy', 'timm', 'PIL', 'pandas', 'matplotlib'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=tmp_path)
    assert ran.stdout.strip() == b"set()", ran.stderr
