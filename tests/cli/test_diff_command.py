"""`camcli diff`: exit status, output and files; and the recipe for CI systems."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from conftest import SAMPLES, Cli
from PIL import Image
from stored_runs import result_line, write_run

from camcli.cli.commands.diff import MAX_NAME_CHARACTERS

ROOT = Path(__file__).parent.parent.parent
SCHEMA = json.loads((files("camcli.io.schemas") / "diff.schema.json").read_text())
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
RECIPE = (ROOT / "docs" / "ci.md").read_text()


def write_stored_run(folder: Path, *lines: Any) -> Path:
    write_run(folder, *(lines or (result_line(),)))
    Image.linear_gradient("L").resize((7, 7)).save(folder / "a.map.png")
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of 30 images; in the new one, the score of the first 25 changes."""
    images = [f"{number:02}.jpg" for number in range(30)]
    changed = [
        result_line(image=name, explanation={"score": 0.9 if name < "25" else 0.5})
        for name in images
    ]
    base = write_stored_run(tmp_path / "base", *(result_line(image=name) for name in images))
    return base, write_stored_run(tmp_path / "new", *changed)


def test_runs_of_explain_are_compared(cli: Cli) -> None:
    arguments = ("explain", SAMPLES, "--save", "map", "--format", "quiet", "--output")
    assert cli(*arguments, "base").status == cli(*arguments, "new").status == 0
    ran = cli("diff", "base", "new", "--max-score-change", "0.0001", "--min-iou", "1")
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.endswith("the same: 4 images\n")
    assert cli(*arguments, "wrong", "--interpolation", "bilinear").status == 0
    ran = cli("diff", "base", "wrong", "--output", "found")
    assert ran.status == 1
    assert "the settings differ: model.transform.interpolation: bicubic, bilinear" in ran.err
    assert "differs: 4 images, beyond a limit: 1 (allowed: 0)" in ran.err
    assert "rocket.jpg" in ran.out
    for line in Path("found/diff.jsonl").read_text().splitlines():
        jsonschema.validate(json.loads(line), SCHEMA)


def test_the_table_shows_the_worst_and_says_so(cli: Cli, runs: tuple[Path, Path]) -> None:
    ran = cli("diff", *runs)
    assert ran.status == 1
    head, *rows = ran.out.splitlines()
    assert head.split("  ")[0] == "image"
    assert len(rows) == 20
    assert "the 20 worst of 25 rows; for more, add --limit 25" in ran.err
    assert len(cli("diff", *runs, "--limit", "25").out.splitlines()) == 26


def test_json_lines_have_every_image(cli: Cli, runs: tuple[Path, Path]) -> None:
    ran = cli("diff", *runs, "--format", "jsonl")
    assert len(ran.lines) == 30
    for line in ran.lines:
        jsonschema.validate(line, SCHEMA)
    assert cli("diff", *runs, "--format", "quiet").out == ""


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--allow", "25"], 0),
        (["--allow", "24"], 1),
        (["--allow", "84%"], 0),
        (["--allow", "83%"], 1),
        (["--max-score-change", "0.4"], 0),
        (["--max-score-change", "off"], 0),
        (["--class-changes", "30"], 1),
    ],
)
def test_limits_set_the_exit_status(
    options: list[str], status: int, cli: Cli, runs: tuple[Path, Path]
) -> None:
    assert cli("diff", *runs, *options).status == status


WRONG = {
    "one folder": (["base"], "NEW is missing"),
    "missing folder": (["base", "none"], "none has no results.jsonl; name the output folder"),
    "a file": (["base", "base/run.json"], "name the output folder"),
    "other images": (["base", "other"], "explain the same images with the same methods"),
    "share": (["base", "base", "--allow", "2/3"], "--allow 2/3: write a number of images"),
    "correlation": (["base", "base", "--min-correlation", "98"], "a number from -1 to 1, or off"),
    "no GitHub": (["base", "base", "--summary"], "write --summary-file FILE"),
    "old report": (["base", "base", "--junit", "base/run.json"], "choose another name"),
    "old lines": (["base", "base", "-o", "diffs"], "diffs/diff.jsonl exists"),
    "summary is a folder": (["base", "base", "--summary-file", "diffs"], "cannot write diffs"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_compared_is_one_line(
    case: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    write_stored_run(tmp_path / "base")
    write_stored_run(tmp_path / "other", result_line(image="other.jpg"))
    (tmp_path / "diffs").mkdir()
    (tmp_path / "diffs" / "diff.jsonl").write_text("old")
    arguments, message = WRONG[case]
    ran = cli("diff", *arguments)
    assert ran.status == 2
    (line,) = [line for line in ran.err.splitlines() if line.startswith("camcli: ")]
    assert message in line
    assert (tmp_path / "diffs" / "diff.jsonl").read_text() == "old"


def test_other_folders_of_camcli_are_refused(cli: Cli, tmp_path: Path) -> None:
    write_stored_run(tmp_path / "base")
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "compare.jsonl").write_text("{}\n")
    ran = cli("diff", "base", "compared")
    assert ran.status == 2
    assert ran.err == (
        "camcli: compared has no results.jsonl; name the output folder of `camcli explain`\n"
    )


def test_files_are_written_where_asked(
    cli: Cli, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {*tmp_path.iterdir()}
    cli("diff", *runs)
    assert {*tmp_path.iterdir()} == before
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    arguments = ("diff", *runs, "--junit", "a/j.xml", "-o", "out", "--summary", "--summary-file")
    assert cli(*arguments, "s.md").status == 1
    names = ("a/j.xml", "out/diff.jsonl", "step.md", "s.md")
    assert all((tmp_path / name).stat().st_size for name in names)
    assert (tmp_path / "step.md").read_bytes() == (tmp_path / "s.md").read_bytes()
    assert cli(*arguments, "s.md").status == 2
    assert cli(*arguments, "s.md", "--overwrite").status == 1
    assert (tmp_path / "s.md").read_text().count("### camcli diff") == 2


def test_a_full_summary_is_said_and_changes_nothing(cli: Cli, runs: tuple[Path, Path]) -> None:
    Path("s.md").write_bytes(bytes(1024 * 1000))
    ran = cli("diff", *runs, "--allow", "100%", "--summary-file", "s.md")
    assert ran.status == 0
    assert "s.md is full, so the summary is left out" in ran.err
    assert Path("s.md").stat().st_size == 1024 * 1000


def test_problems_are_lines_and_names_are_cut(cli: Cli, tmp_path: Path) -> None:
    name = "\x1b[31m\n" + "x" * 5000
    write_stored_run(tmp_path / "base", result_line(image=name))
    changed = result_line(image=name, explanation={"class_name": "y" * 5000})
    write_stored_run(tmp_path / "new", changed, "{")
    ran = cli("diff", "base", "new")
    assert ran.status == 1
    assert "camcli: new: 1 line is damaged and left out" in ran.err
    _, row = ran.out.splitlines()
    assert len(row) < 10 * MAX_NAME_CHARACTERS
    assert "\x1b" not in ran.out + ran.err


# The recipe for CI systems

STEPS = {step["name"]: step for step in ACTION["runs"]["steps"] if "name" in step}


def run_step(name: str, inputs: dict[str, str], folder: Path, status: int = 0) -> tuple[int, str]:
    """Runs the script of a step with a `camcli` that notes its arguments and ends with `status`."""
    step = STEPS[name]
    program = folder / "camcli"
    program.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >words\nexit {status}\n')
    program.chmod(0o755)
    filled = {key: fill_inputs(value, inputs) for key, value in step.get("env", {}).items()}
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", "RUNNER_TEMP": "temp"}
    ran = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env=variables | filled,
        check=False,
    )
    return ran.returncode, (folder / "words").read_text()


def fill_inputs(value: str, inputs: dict[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], value)


@pytest.mark.parametrize(("status", "fails"), [(0, False), (1, False), (2, True)])
def test_the_action_explains(status: int, fails: bool, tmp_path: Path) -> None:
    inputs = {"images": "my photos; touch x", "explain": "--method cam --target *"}
    found, words = run_step("explain", inputs, tmp_path, status)
    assert bool(found) == fails
    assert words.splitlines()[:6] == [
        *("explain", "my photos; touch x", "--method", "cam", "--target", "*"),
    ]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_action_fails_where_the_runs_differ(status: int, tmp_path: Path) -> None:
    found, _ = run_step("diff", {"baseline": "base", "diff": "--allow 1%"}, tmp_path, status)
    assert found == status


def test_the_words_of_the_action_are_options_of_camcli(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stored_run(tmp_path / "base")
    shutil.copytree(tmp_path / "base", tmp_path / "temp" / "camcli" / "new")
    _, words = run_step("diff", {"baseline": "base", "diff": "--allow 1%"}, tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step.md")
    assert cli(*words.splitlines()).status == 0
    assert (tmp_path / "temp" / "camcli" / "junit.xml").exists()
    inputs = {"images": str(SAMPLES / "coffee.jpg"), "explain": ""}
    _, words = run_step("explain", inputs, tmp_path)
    assert cli(*words.splitlines()).status == 0
    assert len([*(tmp_path / "temp" / "camcli" / "new").glob("coffee.*.map.png")]) == 1


def test_the_action_puts_no_input_into_a_script() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", json.dumps(ACTION["runs"])))
    assert used == ACTION["inputs"].keys()
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "uses" in step or step["shell"] == "bash"


def test_the_recipes_are_yaml_and_use_inputs_of_the_action() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", RECIPE, re.M | re.S)
    assert len(blocks) >= 2
    for block in blocks:
        workflow = yaml.safe_load(block)
        steps = [step for job in workflow.get("jobs", {}).values() for step in job["steps"]]
        for step in steps:
            if step.get("uses", "").startswith("camcli/camcli@"):
                required = {key for key, value in ACTION["inputs"].items() if value.get("required")}
                assert required <= step["with"].keys() <= ACTION["inputs"].keys()


COMMANDS = re.findall(r"^ *(?:- )?(camcli diff (?!BASE).*)$", RECIPE, re.M)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_recipe_run(
    command: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "step.md")
    for name in ("baseline", "new"):
        write_stored_run(tmp_path / name)
    assert cli(*shlex.split(command)[1:]).status == 0
