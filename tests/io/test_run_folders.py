"""Folders that camcli names by itself."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from camcli.core.errors import OutputError
from camcli.io.discovery import find_image_sources
from camcli.io.run_folders import claim_new_folder, find_newest_folder, is_run_folder_name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def claim(holds_result: bool = True) -> str:
    with claim_new_folder("camcli-out") as folder:
        if holds_result:
            (folder / "results.jsonl").touch()
    return folder.name


def test_folders_are_numbered() -> None:
    assert [claim(), claim(), claim()] == ["camcli-out", "camcli-out-2", "camcli-out-3"]


def test_a_folder_without_results_is_removed() -> None:
    assert claim(holds_result=False) == "camcli-out"
    assert list(Path().iterdir()) == []


def test_the_newest_has_the_highest_number_as_a_number() -> None:
    assert find_newest_folder("camcli-out") is None
    for end in ("out", "out-9", "out-10", "out-x", "compare-11"):
        Path(f"camcli-{end}").mkdir()
    Path("camcli-out-11").touch()  # a file keeps its number and is no folder
    assert find_newest_folder("camcli-out") == Path("camcli-out-10")
    assert claim() == "camcli-out-12"


def test_a_dangling_link_is_not_written_through() -> None:
    Path("camcli-out").symlink_to("nowhere")
    assert claim() == "camcli-out-2"
    assert not Path("nowhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_place_without_permission_says_what_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OutputError, match="Permission denied; name one with --output DIR"):
        claim()
    tmp_path.chmod(0o755)


def claim_often(_: int) -> list[str]:
    return [claim() for _ in range(10)]


def test_processes_never_share_a_folder() -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        names = [name for own in pool.map(claim_often, range(4), chunksize=1) for name in own]
    assert len(set(names)) == 40


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("camcli-out", True),
        ("camcli-train-12", True),
        ("camcli", False),
        ("camcli-out-", False),
        ("camcli-out-a", False),
        ("my-camcli-out", False),
    ],
)
def test_names_of_run_folders(name: str, own: bool) -> None:
    assert is_run_folder_name(name) == own


def test_pictures_of_earlier_runs_are_no_inputs() -> None:
    for file in ("a.jpg", "b/c.jpg", "camcli-out/a.jpg", "b/camcli-compare-3/d.jpg"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    for given in (".", "**/*.jpg"):
        found = find_image_sources([given], [], None)
        assert sorted(str(source.path) for source in found) == ["a.jpg", "b/c.jpg"]
    named = find_image_sources(["camcli-out/*.jpg"], [], None)
    assert [str(source.path) for source in named] == ["camcli-out/a.jpg"]
