"""What a newcomer types first is answered with what to type, and no option is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Cli
from typer.core import TyperCommand, TyperGroup

from camcli.cli.lazy_commands import COMMAND_SUMMARIES, load_command
from camcli.cli.strict_command import CommandGroup, StrictCommand


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["photo.png"], "write: camcli explain photo.png"),
        (["gone.jpg", "-m", "cam"], "write: camcli explain gone.jpg -m cam"),
        (["a folder"], "write: camcli explain 'a folder'"),
        (["explian", "photo.png"], "Did you mean 'explain'?"),
        (["raport"], "No such command 'raport'."),
        (["train", "photos"], "write camcli train tscam photos or camcli train gap photos"),
        (["train"], "write camcli train tscam DIR or camcli train gap DIR"),
        (["train", "tscm", "photos"], "Did you mean 'tscam'?"),
        (["evaluate", "a folder"], "camcli evaluate localization 'a folder'"),
        (["explain"], "write, for example: camcli explain photo.jpg"),
        (["explain", "-m", "cam"], "write, for example: camcli explain photo.jpg"),
        (["compare"], "write, for example: camcli compare photo.jpg"),
        (["evaluate", "localization"], "write, for example: camcli evaluate localization birds/"),
        (["train", "gap"], "write, for example: camcli train gap photos/"),
        (["explain", "photo.png", "--format", "json"], "did you mean jsonl"),
        (["explain", "photo.png", "--shout"], "No such option: --shout"),
        (["explain", "photo.png", "--model", "a", "--model", "b"], "--model is given 2 times"),
        (["compare", "photo.png", "--model", "a", "--model", "b"], "write --models A,B"),
        (["explain", "photo.png", "-o", "a", "--output", "b"], "--output is given 2 times"),
        (["explain", "photo.png", *["--smooth", "eigen"] * 3], "--smooth is given 3 times"),
        (["layers", "--weights", "--no-weights"], "--weights is given 2 times"),
    ],
)
def test_one_line_says_what_to_type(
    cli: Cli, picture: Path, arguments: list[str], says: str
) -> None:
    (picture.parent / "a folder").mkdir()
    ran = cli(*arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_bare_camcli_prints_its_help(cli: Cli) -> None:
    ran = cli()
    assert ran.status in (0, 2)
    assert "Usage: camcli" in ran.out + ran.err
    assert "camcli: " not in ran.out + ran.err


def test_a_flag_twice_and_lists_repeat(cli: Cli, picture: Path) -> None:
    lists = ("-m", "gradcam", "-m", "cam", "--set", "a=1", "--set", "b=2")
    ran = cli("explain", picture, *lists, "--overwrite", "--overwrite")
    assert "times" not in ran.err
    assert "--set a" in ran.err  # refused for what it says, not for its number


def test_every_command_is_strict() -> None:
    for name in COMMAND_SUMMARIES:
        command: TyperCommand | TyperGroup = load_command(name)
        if isinstance(command, TyperGroup):
            assert isinstance(command, CommandGroup)
            assert all(isinstance(own, StrictCommand) for own in command.commands.values())
        else:
            assert isinstance(command, StrictCommand)
