"""An explain run as a library uses it: no command line, no terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import PHOTOS, small

from camcli.core.errors import OutputError, UsageError
from camcli.core.types import Failure, ImageSource
from camcli.engine.plan import plan_requests
from camcli.engine.targets import parse_target
from camcli.io.files import create_class_slugs
from camcli.io.writers import DrawingStyle, write_result
from camcli.methods.registry import find_method
from camcli.runs import explain_run
from camcli.runs.explain_run import ExplainRun, ExplainTask
from camcli.runs.manifest import create_manifest, create_model_entry
from camcli.runs.run_config import RunConfig


def create_task(output: Path, sources: list[ImageSource | Failure], **options: Any) -> ExplainTask:
    model = small("test_resnet")
    methods = [find_method("gradcam"), find_method("layercam")]
    config = RunConfig(
        model=model,
        requests=plan_requests(model, methods),
        target=parse_target("predicted")(model.labels),
        batch_size=2,
    )
    write_files = partial(
        write_result,
        kinds=("boxes", "array"),
        style=DrawingStyle(model.input_size),
        output=output,
        slugs=create_class_slugs(model.labels),
    )
    entry = create_model_entry(model, weights_file=None)
    manifest = create_manifest(config, entry, {"fit": "squash"}, [], len(sources))
    return ExplainTask(config, sources, write_files, output, manifest, **options)


def photo_sources() -> list[ImageSource | Failure]:
    return [ImageSource(photo, photo.name, photo.stem) for photo in PHOTOS[:4]]


def explain(task: ExplainTask, is_stopped: bool = False) -> ExplainRun:
    run = ExplainRun.from_task(task)
    with run.open_folder() as log:
        for line in run.iter_lines(log, should_stop=lambda: is_stopped):
            assert line["status"] in ("ok", "failed")
    return run


def read_files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "run.json"}


def test_a_run_without_a_command_line_leaves_a_complete_folder(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = explain(create_task(tmp_path / "o", photo_sources()))
    assert (run.ending, run.counts.done_count, run.counts.is_complete) == ("done", 4, True)
    lines = (tmp_path / "o" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["method"] for line in lines] == ["gradcam", "layercam"] * 4
    document = json.loads((tmp_path / "o" / "run.json").read_text())
    assert document["state"] == "done"
    assert document["counts"] == run.counts.to_json()
    assert document["precision"] == "fp32"
    assert document["seconds"].keys() == {"reading", "computing", "writing"}
    assert capfd.readouterr() == ("", "")


def test_a_run_that_is_stopped_continues_to_the_same_bytes(tmp_path: Path) -> None:
    sources, output = photo_sources(), tmp_path / "o"
    failure = Failure("bad.jpg", str(tmp_path / "bad.jpg"), "not an image")
    sources[1] = failure
    whole = explain(create_task(tmp_path / "whole", sources))
    assert (whole.ending, whole.counts.is_complete) == ("done", False)
    interrupted = explain(create_task(output, sources), is_stopped=True)
    assert interrupted.ending == "interrupted"
    assert list(output.iterdir()) == []  # a run without results leaves nothing behind
    stopped = explain(create_task(output, sources, stop_on_error=True))
    assert stopped.ending == "stopped"
    assert stopped.counts.failures == [{"path": failure.path, "error": failure.reason}]
    assert json.loads((output / "run.json").read_text())["state"] == "stopped"
    resumed = explain(create_task(output, sources, resume=True))
    assert resumed.ending == "done"
    assert resumed.counts.earlier_count + resumed.counts.done_count == 3
    assert read_files(output) == read_files(tmp_path / "whole")


def test_an_exception_of_the_caller_marks_the_run_as_failed(tmp_path: Path) -> None:
    run = ExplainRun.from_task(create_task(tmp_path / "o", photo_sources()))
    with pytest.raises(KeyError), run.open_folder() as log:
        raise KeyError(next(run.iter_lines(log))["image"])
    assert run.ending == "failed"
    assert json.loads((tmp_path / "o" / "run.json").read_text())["state"] == "failed"


def test_other_settings_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    task = create_task(tmp_path / "o", photo_sources())
    explain(task)
    before = read_files(tmp_path / "o")
    other = replace(task, resume=True, manifest={**task.manifest, "settings": {"fit": "pad"}})
    with pytest.raises(UsageError, match='fit was "squash", is "pad"'):
        ExplainRun.from_task(other)
    assert read_files(tmp_path / "o") == before


def test_a_run_json_that_cannot_be_finished_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ExplainRun.from_task(create_task(tmp_path / "o", photo_sources()))

    def fail(*_: object) -> None:
        raise OutputError("disk full")

    def explain_and_fill_the_disk() -> None:
        with run.open_folder() as log:
            assert len(list(run.iter_lines(log))) == 8
            assert run.ending == "done"
            monkeypatch.setattr(explain_run, "write_manifest", fail)

    with pytest.raises(OutputError, match="disk full"):
        explain_and_fill_the_disk()
    assert run.ending == "failed"
