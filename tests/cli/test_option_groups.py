"""Options declared as the fields of a dataclass."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
from typer import Option, Typer
from typer.testing import CliRunner

from camcli.cli.option_groups import expand_option_groups

Size = Annotated[int, Option("--size", "-s", min=1)]


@dataclass(frozen=True)
class Picture:
    size: Size
    colour: str = "red"


@dataclass(frozen=True)
class Speed:
    threads: int = 2


def draw(name: str, *, picture: Picture, loud: bool = False, speed: Speed) -> int:
    """Draw it."""
    print(name, picture, loud, speed)  # noqa: T201 - the test reads it
    return 0


def test_fields_take_the_place_of_their_group() -> None:
    expanded = expand_option_groups(draw)
    signature = inspect.signature(expanded)
    assert [*signature.parameters] == ["name", "size", "colour", "loud", "threads"]
    assert signature.parameters["size"].annotation == Size
    assert signature.parameters["size"].default is inspect.Parameter.empty
    assert signature.parameters["threads"].default == 2
    assert (expanded.__name__, expanded.__doc__) == ("draw", "Draw it.")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["a", "-s", "3"], "a Picture(size=3, colour='red') False Speed(threads=2)\n"),
        (
            ["b", "--size", "4", "--colour", "blue", "--loud", "--threads", "1"],
            "b Picture(size=4, colour='blue') True Speed(threads=1)\n",
        ),
    ],
)
def test_a_group_is_built_of_what_was_typed(arguments: list[str], printed: str) -> None:
    app = Typer()
    app.command()(expand_option_groups(draw))
    ran = CliRunner().invoke(app, arguments)
    assert (ran.exit_code, ran.output) == (0, printed)


def test_a_wrong_value_is_refused_as_that_of_any_option() -> None:
    app = Typer()
    app.command()(expand_option_groups(draw))
    assert CliRunner().invoke(app, ["a", "--size", "0"]).exit_code == 2
    assert CliRunner().invoke(app, ["a"]).exit_code == 2
