"""From what was typed to files, and from files to distinct output names."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from camcli.core.errors import UsageError
from camcli.core.types import Failure, ImageSource
from camcli.io.discovery import (
    create_output_stems,
    find_image_sources,
    format_unread_notice,
    parse_path_list,
)

OUT = Path("out")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(found: list[ImageSource | Failure]) -> list[str]:
    return [item.name for item in found]


def test_folders_are_searched_in_order_without_hidden_or_other_files(tmp_path: Path) -> None:
    touch(tmp_path, "b/z.JPG", "b/a.png", "a.webp", "notes.txt", ".hidden/x.jpg", "b/._a.png")
    assert names(find_image_sources([str(tmp_path)], [], OUT)) == ["a.webp", "b/a.png", "b/z.JPG"]


def test_a_run_does_not_explain_its_own_pictures(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "out/a.tabby.overlay.jpg")
    assert names(find_image_sources([str(tmp_path)], [], tmp_path / "out")) == ["a.jpg"]


def test_a_folder_of_results_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "out/results.jsonl", "out/birds/a.jpg")
    for given in ("out", "out/birds"):
        with pytest.raises(UsageError, match="another --output"):
            find_image_sources([str(tmp_path / given)], [], tmp_path / "out")


def test_globs_mirror_the_tree_below_their_fixed_part(tmp_path: Path) -> None:
    touch(tmp_path, "x/1/a.jpg", "x/2/b.jpg", "x/2/c.txt")
    assert names(find_image_sources([f"{tmp_path}/x/*/*"], [], OUT)) == ["1/a.jpg", "2/b.jpg"]
    assert names(find_image_sources([f"{tmp_path}/**/*.jpg"], [], OUT)) == [
        "x/1/a.jpg",
        "x/2/b.jpg",
    ]


def test_a_name_with_brackets_is_a_name_first(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jpg", "a1.jpg")
    assert names(find_image_sources([str(tmp_path / "a[1].jpg")], [], OUT)) == ["a[1].jpg"]


def test_lists_on_stdin_newlines_or_nul(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "new\nline.jpg")
    assert parse_path_list("a.jpg\n\nb c.jpg\n") == ["a.jpg", "b c.jpg"]
    listed = parse_path_list(f"{tmp_path}/new\nline.jpg\0{tmp_path}/a.jpg\0")
    assert names(find_image_sources(["-"], listed, OUT)) == ["new\nline.jpg", "a.jpg"]


def test_a_missing_file_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    found = find_image_sources([str(tmp_path / "no.jpg"), str(tmp_path / "a.jpg")], [], OUT)
    assert isinstance(found[0], Failure)
    assert found[0].reason == "no such file or folder"
    assert found[1].name == "a.jpg"


@pytest.mark.parametrize("given", ["missing.jpg", "empty", "*.nothing", "", "a**/b"])
def test_nothing_to_do_is_wrong_usage(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no |empty|pattern"):
        find_image_sources([given], [], OUT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "shut/b.jpg")
    (tmp_path / "shut").chmod(0)
    found = find_image_sources([str(tmp_path)], [], OUT)
    (tmp_path / "shut").chmod(0o700)
    assert [type(item) for item in found] == [ImageSource, Failure]


def test_pictures_of_other_formats_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.HEIC", "in/c.heic", "in/d.dcm", ".e.heic", "notes.txt")
    unread = Counter[str]()
    assert names(find_image_sources([str(tmp_path)], [], OUT, unread.update)) == ["a.jpg"]
    assert unread == {".heic": 2, ".dcm": 1}
    assert format_unread_notice(unread).startswith("left out 2 .heic, 1 .dcm: ")
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UsageError, match=r"no images .* \(but 2 \.heic, 1 \.dcm\)"):
        find_image_sources([str(tmp_path)], [], OUT)


def test_the_same_file_twice_is_one_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    assert len(find_image_sources([str(tmp_path / "a.jpg"), str(tmp_path)], [], OUT)) == 1


def test_stems_are_short_and_distinct() -> None:
    assert create_output_stems(["a.jpg", "b/c.png"]) == ["a", "b/c"]
    assert create_output_stems(["a.jpg", "a.png", "b.jpg"]) == ["a.jpg", "a.png", "b"]
    assert create_output_stems(["a.jpg", "A.jpg"]) == ["a.jpg", "A.jpg~2"]
    assert create_output_stems(["a.jpg", "a.jpg", "a.jpg"]) == ["a.jpg", "a.jpg~2", "a.jpg~3"]
    assert create_output_stems([".jpg.png", "x.y.jpg"]) == [".jpg", "x.y"]


def test_no_stem_leads_out_of_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a1/x.jpg", "evil/y.jpg")
    found = find_image_sources([f"{tmp_path}/in/a*/../../evil/*.jpg"], [], OUT)
    assert [item.output_stem for item in found if isinstance(item, ImageSource)] == ["y"]
    assert create_output_stems(["../../a.jpg", "/etc/b.jpg"]) == ["a", "b"]
