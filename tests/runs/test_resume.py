"""Runs that are killed, interrupted, stopped, or meet what others left; and `--resume` after it."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from errno import ENOSPC
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import Cli, Ran, heed_interrupts, lively
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from camcli.io import files, jsonl, writers
from camcli.runs import pipeline
from camcli.runs import resume as earlier
from camcli.runs.counts import RunCounts

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc, forks, locks")

Patch = pytest.MonkeyPatch
Go = Callable[..., Ran]
KILLS = 20
# To import torch takes seconds, to fork what has imported it takes none.
FORGE = """
import json, os, sys
import timm, torch
torch.set_num_threads(1)
from camcli.engine import plan
from camcli.io import drawing, writers
from camcli.models import model
from camcli.runs import manifest
from camcli.cli.app import main
from camcli.cli.runners import run_explain
for order in sys.stdin:
    said, *arguments = json.loads(order)
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), stream)
        sys.stdin, sys.argv, status = None, ["camcli", *arguments], 99
        try:
            status = main()
        finally:
            os._exit(status)
    print(child, flush=True)
    sys.stdin.readline()  # until then it has its number, dead or alive
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forge:
    """Runs in processes of their own, one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def _ask(self, order: str) -> int:
        assert self.process.stdin
        assert self.process.stdout
        print(order, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def start(self, command: tuple[object, ...], output: Path) -> None:
        self.said = output.with_suffix(".said")
        told = [self.said, *command, "--output", output]
        self.child = self._ask(json.dumps([*map(str, told)]))

    def send(self, number: signal.Signals) -> None:
        os.kill(self.child, number)

    def wait(self) -> int:
        return self._ask("")


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    command, pipe = [sys.executable, "-c", FORGE], subprocess.PIPE
    options: dict[str, Any] = {"stdin": pipe, "stdout": pipe, "preexec_fn": heed_interrupts}
    with subprocess.Popen(command, text=True, **options) as process:
        yield Forge(process)
        process.communicate()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate(("own", "other")):
        network = lively(timm.create_model("test_resnet", num_classes=4), seed)
        torch.save(network.state_dict(), folder / name)
    return folder


def pictures(folder: Path, count: int) -> None:
    """Of which one is none."""
    folder.mkdir()
    dice = np.random.default_rng(5)
    for n in range(count):
        pixels = dice.integers(0, 256, (24, 30 + n % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n:02}.png")
    (folder / "04.png").write_bytes(b"no picture")


@pytest.fixture
def command(weights: Path, tmp_path: Path) -> tuple[object, ...]:
    pictures(tmp_path / "in", 10)
    shutil.copy(weights / "own", tmp_path / "weights")
    model = ("--model", "test_resnet", "--checkpoint", tmp_path / "weights", "--size", 32)
    return ("explain", tmp_path / "in", *model, "--save", "array,boxes", "--batch-size", 3)


@pytest.fixture
def go(cli: Cli, command: tuple[object, ...]) -> Go:
    return lambda output, *more: cli(*command, "--output", output, *more)


def until(there: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.002)


def lines(output: Path) -> list[bytes]:
    path = output / "results.jsonl"
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def tree(folder: Path = Path()) -> dict[str, bytes]:
    """What lies in a folder, but for run.json, which tells the time."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def state(output: Path) -> str:
    return str(json.loads((output / "run.json").read_text())["state"])


def assert_same(output: Path, whole: Path) -> None:
    """All files, to the last byte; the list, line by line; each image once; nothing besides."""
    found, wanted = tree(output), tree(whole)
    assert lines(output) == lines(whole)
    assert found == wanted
    assert not [name for name in found if name.endswith(".tmp")]
    paths = [json.loads(line)["path"] for line in lines(output)]
    assert len(paths) == len(set(paths))
    assert state(output) == state(whole) == "done"


def assert_mended(go: Go) -> None:
    """A run that goes on in `o` ends as one that was never broken."""
    assert go("o", "--resume").status == go("whole").status
    assert_same(Path("o"), Path("whole"))


def test_killed_at_any_moment_a_run_ends_as_if_unbroken(
    forge: Forge, command: tuple[object, ...], tmp_path: Path
) -> None:
    pictures(tmp_path / "many", 60)
    run = ("explain", tmp_path / "many", *command[2:], "--smooth", "noise:2", "--resume")
    forge.start(run, tmp_path / "whole")
    assert forge.wait() == 1
    dice, killed, part_done, output, ended = random.Random(3), 0, 0, tmp_path / "o0", []
    took = sum(json.loads((tmp_path / "whole" / "run.json").read_text())["seconds"].values())
    while killed < KILLS:
        before = written(output)
        forge.start(run, output)
        if killed % 4:  # at work; the others while they load, and mend what is there
            until(partial(changed, output, before))
        time.sleep(dice.uniform(0, took / 2))
        forge.send(signal.SIGKILL)
        if forge.wait() == -signal.SIGKILL:
            killed += 1
            part_done += 0 < len(lines(output)) < 60
        else:  # it had ended
            ended.append(output)
            output = tmp_path / f"o{len(ended)}"
    assert part_done >= KILLS // 4
    for each in (*ended, output):
        forge.start(run, each)
        assert forge.wait() == 1
        assert_same(each, tmp_path / "whole")


def changed(output: Path, before: int) -> bool:
    return written(output) != before


def written(output: Path) -> int:
    path = output / "run.json"
    return path.stat().st_mtime_ns if path.exists() else 0


Damage = Callable[[Path], object]


def listed(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda output: (output / "results.jsonl").write_bytes(b"".join(change(lines(output))))


def touched(output: Path) -> None:
    os.utime("in/02.png", ns=(1, 1))
    Path("in/05.png").write_bytes(Path("in/06.png").read_bytes())


GARBAGE = [b"\xff\0{\n", b"\n", b"[]\n", b'{"path": 3}\n', b"[" * 9999 + b"\n", b"9" * 9999 + b"\n"]
DAMAGES: dict[str, Damage] = {
    "torn": listed(lambda own: [*own[:-1], own[-1][:-9]]),
    "cut": listed(lambda own: own[:5]),
    "garbage": listed(lambda own: [*own[:3], *GARBAGE, *own[3:], *GARBAGE]),
    "twice": listed(lambda own: [own[0], own[0], *own[1:], own[2], own[6]]),
    "turned": listed(lambda own: own[::-1]),
    "empty": listed(lambda own: []),
    "no list": lambda output: (output / "results.jsonl").unlink(),
    "escaping": listed(lambda own: [line.replace(b'"01.', b'"../o/01.') for line in own]),
    "left by a kill": lambda output: (output / ".results.jsonl.tmp").write_bytes(b"cut"),
    "missing": lambda output: [path.rename(f"lost-{path.name}") for path in output.glob("0[38].*")],
    "touched": touched,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_wrong_with_a_list_is_mended(go: Go, damage: Damage) -> None:
    go("o")
    damage(Path("o"))
    assert_mended(go)


def test_results_of_images_that_are_inputs_no_more_are_kept(go: Go) -> None:
    go("o")
    listed(lambda own: [*own[1:5], own[0]])(Path("o"))
    other, files = lines(Path("o"))[-1], tree(Path("o")).keys()
    Path("in/00.png").unlink()
    assert go("o", "--resume").status == 1
    first, *rest = lines(Path("o"))
    assert first == other
    assert [json.loads(line)["image"] for line in rest] == [f"{n:02}.png" for n in range(1, 10)]
    assert tree(Path("o")).keys() == files


def test_the_result_of_a_named_input_that_is_gone_is_kept(
    cli: Cli, command: tuple[object, ...]
) -> None:
    named = ("explain", *(f"in/{n:02}.png" for n in (0, 1, 2, 3)), *command[2:], "--output")
    assert cli(*named, "o").status == 0
    shutil.copytree("o", "whole")
    listed(lambda own: own[:3])(Path("o"))
    Path("in/01.png").unlink()
    assert cli(*named, "o", "--resume").status == 0
    assert_same(Path("o"), Path("whole"))


def refused(go: Go, *arguments: object) -> str:
    """What a command says that changes nothing."""
    kept = [(tree(), [p.read_bytes() for p in Path().rglob("run.json")])]
    ran = go(*arguments)
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert [(tree(), [p.read_bytes() for p in Path().rglob("run.json")])] == kept
    return ran.err


def test_a_run_of_other_settings_is_not_gone_on_with(go: Go, weights: Path) -> None:
    Path("names").write_text("a\nb\nc\nd\n")
    others: dict[str, tuple[object, ...]] = {
        '(method was ["gradcam"], is ["layercam"])': ("--method", "layercam"),
        '(threshold was null, is "0.5")': ("--threshold", 0.5),
        "(different classes)": ("--labels", "names"),
        "cannot be combined": ("--overwrite",),
    }
    go("o")
    for says, other in others.items():
        assert says in refused(go, "o", "--resume", *other)
    shutil.copy(weights / "other", "weights")
    assert "(different weights)" in refused(go, "o", "--resume")
    Path("o/run.json").unlink()
    assert "has results, but no run.json" in refused(go, "o", "--resume")


@pytest.mark.parametrize("blank", [False, True])
def test_a_run_that_is_done_is_left_as_it_is(go: Go, monkeypatch: Patch, blank: bool) -> None:
    Path("in/04.png").unlink()
    if blank:
        blank_input = np.full((3, 32, 32), np.nan, "f4")
        monkeypatch.setattr(pipeline, "preprocess_image", lambda *_: blank_input)
    first, before = go("o", "--resume"), tree(Path("o"))
    assert (first.status, len(first.lines)) == (blank, 9)
    again = go("o", "--resume")
    assert (again.status, again.out) == (blank, "")
    assert "9 done before" in again.err
    assert (tree(Path("o")), state(Path("o"))) == (before, "done")


def test_a_folder_has_one_run_at_a_time(go: Go) -> None:
    go("o")
    with Path("o/results.jsonl").open("ab") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        for option in ("--resume", "--overwrite"):
            assert "another run is writing to o" in refused(go, "o", option)
    with jsonl.ResultsLog.open(Path("p/results.jsonl")) as log:
        log.append({"path": "x", "status": "failed"})
        assert "another run is writing to p" in refused(go, "p", "--overwrite")
    assert_mended(go)


INNER = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = INNER | st.lists(INNER, max_size=2) | st.dictionaries(st.text(max_size=5), INNER, max_size=2)
NAMES = ["f", "f", "f", "../secret", "/etc/passwd", "sub/../f", "sub", "", ".", "a\0", "\ud800"]


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 9).flatmap(lambda n: usual if n else JSON)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: mostly(usual) for name, usual in fields.items()})


SHOWN = record(
    class_name=st.text(max_size=3),
    map_status=st.sampled_from(["ok", "constant"]),
    files=st.dictionaries(st.text(max_size=3), mostly(st.sampled_from(NAMES)), max_size=2),
    boxes=st.just([]),
)
LINE = record(
    path=st.sampled_from(["a", "b", "gone", "other"]),
    status=st.sampled_from(["ok", "ok", "failed"]),
    key=st.sampled_from(["k", "k", "l"]),
    method=st.just("m"),
    explanations=st.lists(mostly(SHOWN), min_size=1, max_size=2),
)
TEXTS = mostly(LINE).map(lambda says: json.dumps(says).encode() + b"\n") | st.binary(max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=6).map(b"".join))
def test_of_a_list_that_says_anything_only_results_are_kept(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    output = tmp_path_factory.getbasetemp() / "lists" / "o"
    (output / "sub").mkdir(parents=True, exist_ok=True)
    for path in (output / "f", output.parent / "secret"):
        path.write_text("here")
    (output / "results.jsonl").write_bytes(text)
    asked = earlier.ResumePlan({"a": 0, "b": 1, "gone": 2}, 1, {"a": "k", "b": "k"}.get)
    done = earlier.prune_log(output, asked, RunCounts().add_earlier_line)
    own = [
        e.content
        for e in earlier.iter_log_entries(output / "results.jsonl")
        if e.image_path in asked.index_by_path
    ]
    assert sorted(says["path"] for says in own) == sorted(done)
    for says in own:
        assert says["status"] == "ok"
        assert says["path"] == "gone" or says["key"] == "k"
        assert {file for e in says["explanations"] for file in e["files"].values()} <= {"f"}
    assert all(line in text for line in lines(output))
    earlier.sort_log(output, asked.index_by_path)
    assert earlier.prune_log(output, asked, RunCounts().add_earlier_line) == done


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_first_signal_lets_what_is_under_way_finish(
    forge: Forge, command: tuple[object, ...], go: Go, number: signal.Signals, status: int
) -> None:
    more, output = ("--smooth", "noise:20"), Path("o").absolute()
    forge.start((*command, *more), output)
    until(lambda: lines(output))
    forge.send(number)
    assert forge.wait() == status
    said = forge.said.read_text()
    assert "stopping after the current batch" in said
    assert "interrupted; to continue: " in said
    assert state(output) == "interrupted"
    assert len(lines(output)) in (3, 6, 9)  # whole batches
    assert len(tree(output)) == 1 + 2 * sum(b'"ok"' in line for line in lines(output))
    assert_mended(lambda *given: go(*given, *more))


def test_a_second_interrupt_stops_at_once(forge: Forge, command: tuple[object, ...]) -> None:
    output = Path(str(command[1])).parent / "o"
    forge.start((*command, "--smooth", "noise:300"), output)
    until(lambda: lines(output))
    forge.send(signal.SIGINT)
    until(lambda: "stopping" in forge.said.read_text())
    forge.send(signal.SIGINT)
    assert forge.wait() == 130
    assert "Traceback" not in forge.said.read_text()
    assert (state(output), len(lines(output)) < 10) == ("interrupted", True)
    assert all(len(np.load(path).files) == 2 for path in output.glob("*.npz"))
    assert not list(output.glob(".*.tmp"))


def test_stopped_by_an_error_it_can_go_on(go: Go) -> None:
    assert go("o", "--on-error", "stop").status == 1
    assert state(Path("o")) == "stopped"
    assert 5 <= len(lines(Path("o"))) < 10
    assert_mended(go)


def broken(patch: Patch, owner: Any, name: str, nth: int, then: Callable[[], object]) -> None:
    """A function before whose n-th call, and all after it, something happens."""
    inner, calls = getattr(owner, name), iter(range(1, 999))

    def call(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= nth:
            then()
        return inner(*arguments, **options)

    patch.setattr(owner, name, call)


def test_a_folder_that_is_removed_meanwhile_ends_the_run(go: Go, monkeypatch: Patch) -> None:
    with monkeypatch.context() as patch:
        broken(patch, writers, "write_result", 3, lambda: shutil.rmtree("o", ignore_errors=True))
        ran = go("o")
    assert ran.status == 1
    assert "camcli: o/results.jsonl was removed while the run was writing to it\n" in ran.err
    assert "Traceback" not in ran.err
    assert_mended(go)


def fill() -> None:
    raise OSError(ENOSPC, os.strerror(ENOSPC))


@pytest.mark.parametrize("nth", [2, 3, 12])
def test_a_disk_that_fills_ends_the_run(go: Go, monkeypatch: Patch, nth: int) -> None:
    with monkeypatch.context() as patch:
        broken(patch, files, "_write_new_file", nth, fill)
        ran = go("o")
    assert ran.status == 1
    assert ran.err.count("No space left on device\n") == 1
    assert "Traceback" not in ran.err
    assert nth < 12 or "failed; to continue: " in ran.err
    assert_mended(go)


def test_a_run_with_names_of_before_goes_on(go: Go) -> None:
    """Until 0.1 a run of one method left the method out of its file names."""
    go("o")
    Path("o/results.jsonl").write_bytes(
        b"".join(lines(Path("o"))[:3]).replace(b".gradcam.", b".").replace(b"gradcam.npz", b"npz")
    )
    for path in Path("o").glob("0[012].*"):
        path.rename(str(path).replace(".gradcam", ""))
    assert go("o", "--resume").status == 1  # of 04.png
    files = [
        json.loads(line)["explanations"][0]["files"]["array"]
        for line in lines(Path("o"))
        if b'"ok"' in line
    ]
    assert files[:3] == ["00.npz", "01.npz", "02.npz"]
    assert files[3:] == [f"{n:02}.gradcam.npz" for n in (3, 5, 6, 7, 8, 9)]
    assert all((Path("o") / file).is_file() for file in files)


def boom() -> None:
    raise RuntimeError("boom")


PARTS = [
    (pipeline, "read_pixels"),
    (pipeline, "compute_outcomes"),
    (writers, "write_result"),
    (jsonl, "_append_line"),
]


@pytest.mark.parametrize(("owner", "name"), PARTS)
@pytest.mark.parametrize("nth", [1, 3])
def test_whatever_is_raised_leaves_no_thread_and_no_open_file(
    go: Go, monkeypatch: Patch, owner: Any, name: str, nth: int
) -> None:
    go("first")  # which loads what stays loaded
    heeding = signal.getsignal(signal.SIGINT)
    before = set(threading.enumerate()), len([*Path("/proc/self/fd").iterdir()])
    with monkeypatch.context() as patch:
        broken(patch, owner, name, nth, boom)
        ran = go("o")
    gc.collect()
    assert (set(threading.enumerate()), len([*Path("/proc/self/fd").iterdir()])) == before
    assert signal.getsignal(signal.SIGINT) is heeding
    assert ran.status == 1
    assert "camcli: a bug in camcli: RuntimeError: boom; " in ran.err
    assert_mended(go)
