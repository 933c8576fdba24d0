"""`camcli methods`, `models` and `layers` as one JSON document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli

from camcli.methods.registry import METHODS


def read_document(cli: Cli, *arguments: object) -> Any:
    ran = cli(*arguments, "--format", "json")
    assert ran.status == 0, ran.err
    return json.loads(ran.out)


def test_the_methods_are_those_of_the_lines(cli: Cli) -> None:
    rows = read_document(cli, "methods")
    assert rows == cli("methods", "--format", "jsonl").lines
    assert [row["method"] for row in rows] == list(METHODS)
    by_name = {row["method"]: row for row in rows}
    assert by_name["eigencam"]["of the class"] is False
    assert "gradient" in by_name["gradcam"]["needs"]


def test_one_method_has_its_options_and_its_equation(cli: Cli) -> None:
    found = read_document(cli, "methods", "tscam")
    assert found == cli("methods", "tscam", "--format", "jsonl").lines[0]
    assert found["options"].keys() == METHODS["tscam"].options.keys()
    assert set(found["choices"]) <= set(found["options"])
    assert found["description"].startswith("TS-CAM")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_document(cli: Cli, name: str) -> None:
    assert read_document(cli, "methods", name)["method"] == name


@pytest.mark.parametrize("option", [(), ("--all",), ("--tree",)])
def test_the_layers_are_those_of_the_lines(cli: Cli, option: tuple[str, ...]) -> None:
    command = ("layers", "test_vit", "--no-weights", *option)
    rows = read_document(cli, *command)
    assert rows == cli(*command, "--format", "jsonl").lines
    (default,) = [row for row in rows if row["default"]]
    assert (default["layer"], default["option"]) == ("blocks.5.norm1", "--block 5")


def test_the_models_are_those_of_the_list(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / 'vit "mine".pth').write_bytes(b"")
    listed = cli("models", "vit*lite0").out.splitlines()
    rows = read_document(cli, "models", "vit*lite0")
    assert [f"{row['model']}  (embedded)" for row in rows] == listed
    loadable = read_document(cli, "models", "vit*", "--loadable")
    assert {"model": "vit_lite0", "embedded": True, "file": False} in loadable
    assert loadable[-1] == {"model": 'vit "mine".pth', "embedded": False, "file": True}


def test_no_model_is_wrong_usage_in_any_format(cli: Cli) -> None:
    ran = cli("models", "nothinglikeit", "--format", "json")
    assert (ran.status, ran.out) == (2, "")
