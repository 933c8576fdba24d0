"""`camcli merge` on shards made by hand: order, refusals, hostile folders, merges cut off."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stored_shards import change_document, files_of, shard_line, write_lines, write_shards

from camcli.runs import merge_shards

Damage = Callable[[list[Path]], object]


def merged_images(output: Path) -> list[str]:
    lines = (output / "results.jsonl").read_text().splitlines()
    return [json.loads(line)["image"] for line in lines]


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(images=st.integers(1, 30), shards=st.integers(1, 9), size=st.integers(1, 7))
def test_the_order_is_that_of_the_run(
    images: int, shards: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("run")
    write_shards(output, images, shards, size)
    merged = merge_shards.merge_shards(output)
    names = [f"{n:04}.jpg" for n in range(images)]
    assert merged_images(output) == names
    assert {path.name for path in output.iterdir()} == {
        *(f"{name}.map.png" for name in names),
        *("results.jsonl", "run.json"),
    }
    assert all((output / f"{name}.map.png").read_text() == name for name in names)
    assert merged.document["counts"]["done"] == merged.document["images"] == images
    assert merged.document["shards"] == {"count": shards}
    assert merged.document["seconds"] == {"computing": 1.5 * shards}
    assert merge_shards.is_merged(output)


def drop(key: str) -> Damage:
    return lambda own: change_document(own[1], lambda document: document.pop(key))


def put(key: str, value: Any) -> Damage:
    return lambda own: change_document(own[1], lambda document: document.update({key: value}))


def put_entry(**changes: Any) -> Damage:
    return lambda own: change_document(own[1], lambda document: document["shard"].update(changes))


def lined(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    def damage(own: list[Path]) -> None:
        log = own[1] / "results.jsonl"
        log.write_bytes(b"".join(change(log.read_bytes().splitlines(keepends=True))))

    return damage


def named(*files: str) -> Damage:
    """The first line of the second shard names these files."""
    line = f"{json.dumps(shard_line('0002.jpg', *files))}\n".encode()
    return lined(lambda own: [line, *own[1:]])


def change_first(**changes: Any) -> Damage:
    return lined(lambda own: [_changed(own[0], changes), *own[1:]])


def _changed(raw_line: bytes, changes: Mapping[str, Any]) -> bytes:
    return json.dumps(json.loads(raw_line) | changes).encode() + b"\n"


def link_file(own: list[Path]) -> None:
    file = own[1] / "0002.jpg.map.png"
    file.unlink()
    file.symlink_to("../../../secret")


def link_folder(own: list[Path]) -> None:
    (own[1] / "away").symlink_to(own[1].parent.parent.parent)
    named("away/secret")(own)


def link_log(own: list[Path]) -> None:
    log = own[1] / "results.jsonl"
    log.rename(own[1].parent / "elsewhere")
    log.symlink_to("../elsewhere")


def link_shard(own: list[Path]) -> None:
    own[1].rename(own[1].parent / "elsewhere")
    own[1].symlink_to("elsewhere")


def copy_file_of_another(own: list[Path]) -> None:
    (own[1] / "0000.jpg.map.png").write_text("mine")
    named("0000.jpg.map.png")(own)


# What is wrong with the second of three shards, and what camcli says.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing": (lambda own: own[1].rename(own[1].parent / "kept"), r"shard 1 of 3 is not finished"),
    "a link": (link_shard, r"shard 1 of 3 is not finished"),
    "running": (
        put("state", "running"),
        r"to continue: camcli explain --resume photos --shard=1/3",
    ),
    "interrupted": (put("state", "interrupted"), r"shard 1 of 3 is not finished"),
    "a list without run.json": (lambda own: (own[1] / "run.json").unlink(), r"no run\.json"),
    "other settings": (put("settings", {"fit": "pad"}), r'fit was "squash", is "pad"'),
    "other weights": (
        put("model", {"weights_sha256": "c" * 64, "classes_sha256": "b" * 64, "transform": {}}),
        r"different weights",
    ),
    "another number": (
        lambda own: own[1].rename(own[1].parent / "0001-of-0004"),
        r"shards of 3 and 4; remove",
    ),
    "no entry": (drop("shard"), r"not that of shard 1/3"),
    "another's entry": (put_entry(index=2), r"not that of shard 1/3"),
    "an entry of a word": (put_entry(images="many"), r"not that of shard 1/3"),
    "other images": (put_entry(list_sha256="0" * 64), r"the list of images differs"),
    "another batch size": (put_entry(batch_size=3), r"--batch-size differs"),
    "more images": (put_entry(images=11), r"the number of images differs"),
    "a lost line": (lined(lambda own: own[1:]), r"results of 3 images, not of 4"),
    "an empty list": (lambda own: (own[1] / "results.jsonl").unlink(), r"of 0 images, not of 4"),
    "settings of another type": (put("settings", [1]), r"no run\.json"),
    "lines of others": (lined(lambda own: [*own, own[0]]), r"5 images, not of 4"),
    "turned": (lined(lambda own: own[::-1]), r"not those of the run's images"),
    "torn": (lined(lambda own: [*own[:-1], own[-1][:-9]]), r"line 4 of .* is damaged \(it is cut"),
    "not JSON": (lined(lambda own: [b"\xff\0{\n", *own[1:]]), r"line 1 of .* \(it is not JSON"),
    "deep": (lined(lambda own: [b"[" * 99999 + b"\n", *own[1:]]), r"line 1 of .* \(it is not JSON"),
    "a list": (lined(lambda own: [b"[]\n", *own[1:]]), r"line 1 of .* \(not an object"),
    "no explanation": (change_first(explanations=[]), r"line 1 of .* \(explanations"),
    "a width of none": (change_first(width=None), r"line 1 of .* \(width"),
    "a lost file": (lambda own: (own[1] / "0002.jpg.map.png").unlink(), r"map\.png is missing"),
    "a linked file": (link_file, r"map\.png is missing"),
    "a linked folder": (link_folder, r"away/secret is missing"),
    "a linked list": (link_log, r"is a link"),
    "a file outside": (named("../../../secret"), r"names the file \.\./\.\./\.\./secret"),
    "a root": (named("/etc/passwd"), r"names the file /etc/passwd"),
    "a disk": (named("C:\\secret"), r"names the file C:\\secret"),
    "the list itself": (named("results.jsonl"), r"names the file results\.jsonl"),
    "run.json": (named("RUN.json"), r"names the file RUN\.json"),
    "another shard's list": (named("shards/0000-of-0003/results.jsonl"), r"names the file shards/"),
    "the merge's file": (named("shards/merge.jsonl"), r"names the file shards/merge"),
    "a temporary file": (named(".results.jsonl.tmp"), r"names the file \.results"),
    "no name": (named("a\0b"), r"names the file a\\x00b"),
    "half a letter": (named("\ud800/a"), r"is missing"),
    "a file of another shard": (copy_file_of_another, r"two shards hold files of the same name"),
    "control characters": (named("\x1b[31m"), r"\\x1b\[31m"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_does_not_fit_is_refused_before_anything_moves(
    case: str, cli: Cli, tmp_path: Path
) -> None:
    damage, message = DAMAGES[case]
    (tmp_path / "secret").write_text("secret")
    folders = write_shards(tmp_path / "o", 10, 3)
    damage(folders)
    before = files_of(tmp_path)
    ran = cli("merge", "o")
    assert ran.status == 2, ran.err
    assert re.search(message, ran.err), ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert ran.err.strip().isprintable()
    assert files_of(tmp_path) == before


def test_a_folder_of_the_run_that_is_a_link_is_not_written_to(cli: Cli, tmp_path: Path) -> None:
    (own,) = write_shards(tmp_path / "o", 1, 1)
    (own / "away").mkdir()
    (own / "0000.jpg.map.png").rename(own / "away" / "a.png")
    write_lines(own, [shard_line("0000.jpg", "away/a.png")])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "o" / "away").symlink_to(tmp_path / "elsewhere")
    ran = cli("merge", "o")
    assert ran.status == 2
    assert "leads out of the folder" in ran.err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_images_in_a_folder_called_shards_keep_their_place(cli: Cli, tmp_path: Path) -> None:
    (own,) = write_shards(tmp_path / "o", 1, 1)
    (own / "shards").mkdir()
    (own / "0000.jpg.map.png").rename(own / "shards" / "a.png")
    write_lines(own, [shard_line("0000.jpg", "shards/a.png")])
    assert cli("merge", "o").status == 0
    assert (tmp_path / "o" / "shards" / "a.png").read_text() == "0000.jpg"
    assert [path.name for path in (tmp_path / "o" / "shards").iterdir()] == ["a.png"]
    assert "merged already" in cli("merge", "o").err


def test_an_earlier_run_is_replaced_only_if_the_user_says_so(cli: Cli, tmp_path: Path) -> None:
    write_shards(tmp_path / "o", 3, 2)
    (tmp_path / "o" / "results.jsonl").write_text("old\n")
    refused = cli("merge", "o")
    assert (refused.status, refused.out) == (2, "")
    assert "--overwrite" in refused.err
    assert (tmp_path / "o" / "results.jsonl").read_text() == "old\n"
    assert cli("merge", "o", "--overwrite").status == 0
    assert merged_images(tmp_path / "o") == ["0000.jpg", "0001.jpg", "0002.jpg"]


def test_files_that_nobody_knows_stay(cli: Cli, tmp_path: Path) -> None:
    folders = write_shards(tmp_path / "o", 3, 2)
    (folders[1] / "notes.txt").write_text("mine")
    ran = cli("merge", "o")
    assert ran.status == 0
    assert "1 other files stay in o/shards" in ran.err
    assert (folders[1] / "notes.txt").read_text() == "mine"


def test_a_command_to_continue_needs_arguments_that_are_texts(cli: Cli, tmp_path: Path) -> None:
    folders = write_shards(tmp_path / "o", 10, 3)
    for folder in folders:
        change_document(folder, lambda document: document.update(state="failed", arguments=[3]))
    message = "shards 0, 1, 2 are not finished; to continue: repeat the run's command with --resume"
    assert message in cli("merge", "o").err
    change = {"arguments": ["explain", "\x1b[2J", "$(rm -r .)", "--shard", "auto"]}
    change_document(folders[1], lambda document: document.update(change))
    shown = r"camcli explain --resume '\x1b[2J' '$(rm -r .)' --shard=0/3"
    assert cli("merge", "o").err.endswith(f"to continue: {shown}\n")


@pytest.mark.parametrize("shards", [3, {}, {"count": "many"}, None])
def test_a_run_json_of_another_kind_is_no_merged_run(
    shards: object, cli: Cli, tmp_path: Path
) -> None:
    (own,) = write_shards(tmp_path / "o", 1, 1)
    document = json.loads((own / "run.json").read_text()) | {"shards": shards}
    (tmp_path / "o" / "run.json").write_text(json.dumps(document))
    (own.parent / "merge.jsonl").write_text("left\n")
    assert cli("merge", "o").status == 0
    assert merged_images(tmp_path / "o") == ["0000.jpg"]


def test_no_shards_are_an_error(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        ran = cli("merge", folder)
        assert ran.status == 2
        assert "has no shards" in ran.err
        assert not (tmp_path / folder / "shards").exists()


class CutOffError(BaseException):
    """Ends a merge as a kill does: no handler of camcli takes it."""


STEPS = ("_rename_file", "replace_log", "write_manifest", "_remove_files", "_remove_shards")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("calls_before", [0, 1, 4])
@pytest.mark.parametrize("is_late", [False, True])
def test_a_merge_that_is_cut_off_goes_on(
    step: str,
    calls_before: int,
    is_late: bool,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_shards(tmp_path / "whole", 10, 3)
    assert cli("merge", "whole").status == 0
    write_shards(tmp_path / "o", 10, 3)
    (tmp_path / "o" / "results.jsonl").write_text("old\n")
    original, calls = getattr(merge_shards, step), 0

    def cut_off(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= calls_before:
            return original(*arguments)
        if is_late:
            original(*arguments)
        raise CutOffError

    with monkeypatch.context() as patched:
        patched.setattr(merge_shards, step, cut_off)
        try:
            merge_shards.merge_shards(tmp_path / "o", overwrite=True)
        except CutOffError:
            is_cut = True
        else:
            is_cut = False
    assert is_cut or calls <= calls_before
    has_old = (tmp_path / "o" / "results.jsonl").exists() and not is_merged_list(tmp_path / "o")
    ran = cli("merge", "o", *(["--overwrite"] if has_old else []))
    assert ran.status == 0, ran.err
    assert files_of(tmp_path / "o") == files_of(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "o").iterdir() if path.is_dir()] == []


def is_merged_list(output: Path) -> bool:
    return (output / "results.jsonl").read_text() != "old\n"


def test_another_file_system_gets_copies(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from errno import EXDEV

    write_shards(tmp_path / "o", 5, 2)
    write_shards(tmp_path / "whole", 5, 2)
    assert cli("merge", "whole").status == 0
    original = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if "shards" in self.parts and "shards" not in target.parts:
            raise OSError(EXDEV, "other file system")
        return original(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert cli("merge", "o").status == 0
    assert files_of(tmp_path / "o") == files_of(tmp_path / "whole")
