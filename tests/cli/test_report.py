"""`camcli report` and `explain --report`."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path
from typing import Any

import pytest
from conftest import PHOTOS, Cli


def read_data(page_file: Path) -> dict[str, Any]:
    text = page_file.read_text().partition('id="data">')[2].partition("</script>")[0]
    found: dict[str, Any] = json.loads(text)
    return found


def test_explain_writes_a_page_with_its_maps(cli: Cli, tmp_path: Path) -> None:
    run = ("explain", PHOTOS[0], "--fit", "crop", "--report", "--output", tmp_path)
    ran = cli(*run)
    assert ran.status == 0, ran.err
    assert f"open {tmp_path / 'report.html'}" in ran.err
    (item,) = read_data(tmp_path / "report.html")["items"]
    assert item["caption"] == "tiger cat 0.37"
    (tile,) = item["tiles"]
    left, top, right, bottom = tile["view"]
    assert right - left == pytest.approx(262.5, abs=1)
    assert bottom - top == pytest.approx(262.5, abs=1)
    assert tile["map"]
    settings = json.loads((tmp_path / "run.json").read_text())["settings"]
    assert settings["save"] == "overlay,boxes,map"
    assert cli(*run, "--resume").status == 0


def test_a_page_of_a_stored_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    assert cli("explain", PHOTOS[0], "--save", "map", "--output", folder).status == 0
    opened: list[str] = []

    def open_address(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", open_address)
    page_file = tmp_path / "page.html"
    ran = cli("report", folder, "--output", page_file, "--embed", "--open")
    assert (ran.status, ran.out) == (0, f"{page_file}\n")
    assert opened == [page_file.as_uri()]
    assert "thumbnail" in read_data(page_file)["items"][0]


def test_without_a_browser_there_is_one_line(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("explain", PHOTOS[0], "--save", "map", "--output", tmp_path).status == 0
    monkeypatch.setattr(webbrowser, "open", lambda _address: False)
    ran = cli("report", tmp_path, "--open")
    assert ran.status == 2
    assert "no browser found; open" in ran.err


@pytest.mark.parametrize("made", ["nothing", "a file", "a page of mine"])
def test_a_wrong_folder_is_one_line(cli: Cli, tmp_path: Path, made: str) -> None:
    folder = tmp_path / "out"
    if made == "a file":
        folder.write_text("text")
    elif made == "a page of mine":
        folder.mkdir()
        (folder / "results.jsonl").write_text("")
        (folder / "report.html").write_text("mine")
    ran = cli("report", folder)
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1
    assert not folder.is_dir() or (folder / "report.html").read_text() == "mine"


def test_an_empty_run_has_a_page(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("\n{\n")
    ran = cli("report", tmp_path)
    assert ran.status == 0
    assert "1 line is damaged and left out" in ran.err
    assert read_data(tmp_path / "report.html")["items"] == []


def test_a_difference_has_a_page(cli: Cli, tmp_path: Path) -> None:
    for name, size in (("base", 224), ("new", 160)):
        ran = cli(
            "explain", PHOTOS[0], "--size", size, "--save", "map", "--output", tmp_path / name
        )
        assert ran.status == 0, ran.err
    page_file = tmp_path / "diff.html"
    ran = cli("diff", tmp_path / "base", tmp_path / "new", "--report", page_file)
    assert ran.status == 1
    (item,) = read_data(page_file)["items"]
    assert [tile["column"] for tile in item["tiles"]] == [0, 1, 2]
    again = cli("diff", tmp_path / "base", tmp_path / "new", "--report", page_file)
    assert again.status == 2
    assert "exists" in again.err
