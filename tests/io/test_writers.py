"""The kinds of output come from one registry: for the command line, its help and the schema."""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
from conftest import Cli

from camcli.core.errors import OutputError, UsageError
from camcli.core.maps import MAP_STATUSES
from camcli.core.types import STATUS_TEXTS, ClassExplanation, MapStatus, Result
from camcli.io.jsonl import ResultsLog, lock_log
from camcli.io.writers import (
    WRITERS,
    DrawingStyle,
    EncodedFile,
    describe_writers,
    find_writer,
    writer,
)

SCHEMA = json.loads((files("camcli.io") / "schemas/results.schema.json").read_text())
OUTPUTS_PAGE = Path(__file__).parents[2] / "docs/outputs.md"
LISTS_WITHOUT_NUMPY = """
import sys
from camcli.io.writers import WRITERS
print(*WRITERS)
print(sorted({"numpy", "PIL", "torch", "matplotlib"} & set(sys.modules)))
"""


@pytest.fixture
def new_kinds() -> Iterator[None]:
    """Two kinds of output that camcli does not have."""

    @writer(help="the class as text")
    def note(result: Result, explanation: ClassExplanation, style: DrawingStyle) -> EncodedFile:
        return "note.txt", explanation.class_label.encode()

    @writer(help="the size of the image", per_image=True)
    def size(result: Result, style: DrawingStyle) -> EncodedFile:
        return "size.txt", str(result.sample.view.image_size).encode()

    yield
    del WRITERS["note"], WRITERS["size"]


@pytest.mark.usefixtures("new_kinds")
def test_a_new_kind_is_one_function(cli: Cli, picture: Path, tmp_path: Path) -> None:
    ran = cli("explain", picture, "--save", "note,size,boxes", "--target", "top:2", "--output", "o")
    assert ran.status == 0, ran.err
    (line,) = ran.lines
    jsonschema.validate(line, SCHEMA)
    shown = [(e["class_name"], e["files"]) for e in line["explanations"]]
    assert [[*kinds] for _, kinds in shown] == [["note", "boxes", "size"]] * 2
    for name, kinds in shown:
        assert (tmp_path / "o" / kinds["note"]).read_text() == name
    assert {kinds["size"] for _, kinds in shown} == {"photo.gradcam.size.txt"}
    assert (tmp_path / "o" / "photo.gradcam.size.txt").read_text() == "(120, 80)"
    assert f"{', '.join(WRITERS)}, sheet)" in cli("explain", "a", "--save", "sise").err


def test_all_kinds_of_one_image_have_names_of_their_own(
    cli: Cli, picture: Path, tmp_path: Path
) -> None:
    ran = cli("explain", picture, "--save", ",".join(WRITERS), "--output", "o")
    assert ran.status == 0, ran.err
    (line,) = ran.lines
    (shown,) = line["explanations"]
    assert {*shown["files"]} == {*WRITERS}
    assert len({*shown["files"].values()}) == len(WRITERS)
    assert all((tmp_path / "o" / name).stat().st_size for name in shown["files"].values())


def test_help_and_schema_know_every_kind(cli: Cli) -> None:
    shown = " ".join(cli("explain", "--help").out.split())
    pattern = SCHEMA["$defs"]["explanation"]["properties"]["files"]["propertyNames"]["pattern"]
    for name, kind in WRITERS.items():
        assert kind.name == name
        assert kind.help
        assert re.search(pattern, name)
        assert name in shown
    assert describe_writers().startswith("overlay: the map over the image; heatmap: ")


def test_the_page_on_outputs_lists_every_kind() -> None:
    table = (
        OUTPUTS_PAGE.read_text(encoding="utf-8").partition("| `--save` |")[2].partition("\n\n")[0]
    )
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(WRITERS)


def test_kinds_are_listed_without_numpy() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LISTS_WITHOUT_NUMPY], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [" ".join(WRITERS), "[]"]


def test_unknown_and_doubled_kinds_are_refused() -> None:
    with pytest.raises(UsageError, match=r"--save overlays: no such output; did you mean overlay"):
        find_writer("overlays")
    with pytest.raises(UsageError, match=r"choose from overlay, .*, array, sheet\)"):
        find_writer("png")

    def boxes() -> EncodedFile:
        return "boxes.txt", b""

    with pytest.raises(ValueError, match="the output kind boxes is registered twice"):
        writer(help="boxes again")(boxes)


def test_every_map_status_has_one_text() -> None:
    assert get_args(MapStatus) == MAP_STATUSES == ("ok", *STATUS_TEXTS)
    assert SCHEMA["$defs"]["status"]["enum"] == [*MAP_STATUSES]


def test_a_log_is_appended_to_and_locked(tmp_path: Path) -> None:
    path = tmp_path / "o/log.jsonl"
    with ResultsLog.open(path) as log:
        log.append({"a": 1})
        with pytest.raises(OutputError, match=r"another run is writing to .*o just now"):
            ResultsLog.open(path, resume=True)
        with pytest.raises(OutputError, match="another run"), lock_log(path):
            pass
    with pytest.raises(OutputError, match="File exists"):
        ResultsLog.open(path)
    with ResultsLog.open(path, resume=True) as log:
        log.append({"b": "\x1b"})
    assert path.read_bytes() == b'{"a": 1}\n{"b": "\\u001b"}\n'
    with ResultsLog.open(path, overwrite=True):
        assert path.read_bytes() == b""
    assert not path.exists()  # nothing was written


def test_a_folder_in_the_place_of_a_log_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.mkdir()
    with pytest.raises(OutputError, match=r"cannot write to .*: Is a directory"), lock_log(path):
        path.read_bytes()
    with pytest.raises(OutputError, match=r"cannot write to .*: Is a directory"):
        ResultsLog.open(path, resume=True)


def test_a_log_that_was_replaced_before_the_lock_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("{}\n")

    def replace_before_lock(*_: object) -> None:
        path.unlink()
        path.write_text("{}\n")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", replace_before_lock)
        with pytest.raises(OutputError, match="another run"):
            ResultsLog.open(path, resume=True)
    with ResultsLog.open(path, resume=True) as log:
        log.append({})
    assert path.read_text() == "{}\n{}\n"
