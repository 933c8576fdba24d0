"""A run's folder, read again: nothing in it is trusted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_runs import result_line, write_run

from camcli.core.errors import UsageError
from camcli.core.types import Box, Failure
from camcli.review.result_lines import LineError, is_inside_folder, parse_result
from camcli.review.stored_run import open_run


def test_a_run_has_its_results_and_failures(tmp_path: Path) -> None:
    failed = {"image": "b.jpg", "path": "b.jpg", "status": "failed", "error": "truncated"}
    run = open_run(write_run(tmp_path, result_line(), failed))
    (result,) = run
    assert run.failures == (Failure("b.jpg", "b.jpg", "truncated"),)
    assert not run.problems
    assert list(result.view) == [0, 0, 40, 20]
    assert result.explanations[0].boxes == (Box(1, 2, 30, 20, 0.5),)
    assert result.is_right is False
    assert run.methods == ("gradcam",)
    assert len(run.filter(lambda result: result.method == "layercam")) == 0


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path, "{", result_line(), "[]", "null", '{"status": "ok"}'))
    assert len(run) == 1
    assert run.problems == ("4 lines are damaged and left out (line 1, 3, 4, 5 of results.jsonl)",)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path, result_line(), state="running"))
    assert run.problems == ("the run is not complete: its state is running",)


def test_without_run_json_the_results_are_there(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path, result_line(), state=None))
    assert len(run) == 1
    assert "run.json is missing" in run.problems[0]


@pytest.mark.parametrize("content", ["[]", "{", '"done"', "[" * 100_000])
def test_a_damaged_run_json_is_a_problem(tmp_path: Path, content: str) -> None:
    write_run(tmp_path, result_line())
    (tmp_path / "run.json").write_text(content)
    assert "cannot be read" in open_run(tmp_path).problems[0]


def test_files_that_leave_the_folder_are_left_out(tmp_path: Path) -> None:
    files = {"map": "../../etc/passwd", "overlay": "C:\\windows\\a.jpg", "boxes": "sub/a.json"}
    run = open_run(write_run(tmp_path, result_line(explanation={"files": files})))
    assert run.results[0].explanations[0].files == {"boxes": "sub/a.json"}
    assert "2 file names leave the run's folder" in run.problems[0]


@pytest.mark.parametrize("name", ["a/../../b", "/a", "C:/a", "\\\\host\\a", "a\\..\\b", "", ".."])
def test_outside_names(name: str) -> None:
    assert not is_inside_folder(name)


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no results\.jsonl; name the output folder"):
        open_run(tmp_path)


BROKEN: list[dict[str, Any]] = [
    {"width": 0},
    {"width": True},
    {"height": 10**400},
    {"image": 5},
    {"threshold": float("inf")},
    {"threshold": None},
    {"layers": [1]},
    {"explanations": {}},
    {"explanations": [3]},
    {"view": {"left": 0}},
    {"view": {"left": 9, "top": 0, "right": 1, "bottom": 5}},
    {"explanation": {"boxes": [{"x1": 5, "y1": 0, "x2": 41, "y2": 5, "score": 0.1}]}},
    {"explanation": {"boxes": [{"x1": 5, "y1": 0, "x2": 5, "y2": 5, "score": 0.1}]}},
    {"explanation": {"boxes": [7]}},
    {"explanation": {"score": "high"}},
    {"explanation": {"score": 10**400}},
    {"explanation": {"class_index": -1}},
    {"explanation": {"files": {"map": 3}}},
    {"explanation": {"mask": {"size": [1, 1], "counts": "0"}}},
    {"explanation": {"against": ["x"]}},
]


@pytest.mark.parametrize("changes", BROKEN, ids=str)
def test_what_the_schema_forbids_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LineError):
        parse_result(result_line(**changes))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(st.sampled_from([*result_line()]), json_values)
def test_any_value_is_parsed_or_refused(key: str, value: Any) -> None:
    with suppress(LineError):
        parse_result(result_line() | {key: value})


@given(st.sampled_from([*result_line()["explanations"][0]]), json_values)
def test_any_value_of_an_explanation_is_parsed_or_refused(key: str, value: Any) -> None:
    with suppress(LineError):
        parse_result(result_line(explanation={key: value}))
