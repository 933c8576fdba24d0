"""Help pages: what every user reads first."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import Cli
from typer.core import TyperArgument, TyperGroup, TyperOption

from camcli import __version__
from camcli.cli.lazy_commands import COMMAND_SUMMARIES, load_command

SHORT = {"--method": "-m", "--output": "-o", "--layers": "-l", "--block": "-b", "--target": "-t"}
PANELS = ("Model", "Method", "Training", "Input", "Output", "Pictures", "Speed")
MAIN_COMMANDS = ("explain", "compare", "evaluate localization")


def iter_pages() -> Iterator[tuple[str, TyperArgument | TyperOption]]:
    """Each option and argument, with the command that has it."""
    for name in COMMAND_SUMMARIES:
        command = load_command(name)
        parts = command.commands.items() if isinstance(command, TyperGroup) else [("", command)]
        for part, each in parts:
            for parameter in each.params:
                assert isinstance(parameter, TyperArgument | TyperOption)
                yield f"{name} {part}".strip(), parameter


PAGES = list(iter_pages())


def test_the_version_is_printed(cli: Cli) -> None:
    ran = cli("--version")
    assert (ran.status, ran.out, ran.err) == (0, f"camcli {__version__}\n", "")


def test_no_command_shows_the_help_page_and_nothing_else(cli: Cli) -> None:
    ran = cli()
    assert ran.status == 2
    assert "explain" in ran.out + ran.err
    assert "camcli: " not in ran.err


@pytest.mark.parametrize("name", COMMAND_SUMMARIES)
def test_the_main_page_says_of_a_command_what_its_own_page_says(name: str) -> None:
    help_text = load_command(name).help or ""
    assert help_text.partition("\n\n")[0].replace("\n", " ") == COMMAND_SUMMARIES[name]


@pytest.mark.parametrize("name", sorted({command for command, _ in PAGES} | {"evaluate", "train"}))
def test_usage_has_single_brackets(name: str, cli: Cli) -> None:
    pages = [cli(*name.split(), flag) for flag in ("-h", "--help")]
    assert pages[0] == pages[1]
    usage = next(line for line in pages[0].out.splitlines() if "Usage:" in line)
    assert usage.split("Usage: camcli ")[1].startswith(name)
    assert not re.search(r"\[\[|\{\{|\.\.\.[^.\s]*\.\.\.", usage)


@pytest.mark.parametrize(("command", "parameter"), PAGES, ids=lambda p: getattr(p, "name", p))
def test_every_option_is_explained_in_a_sentence(
    command: str, parameter: TyperArgument | TyperOption
) -> None:
    text = parameter.help or ""
    assert re.match(r"[A-Z].*\.$", text), command
    assert len(text) < (900 if parameter.name == "save" else 200)  # save describes every kind
    assert "As for" not in text
    if isinstance(parameter, TyperOption) and command in MAIN_COMMANDS:
        assert parameter.rich_help_panel in PANELS


@pytest.mark.parametrize("command", MAIN_COMMANDS)
def test_frequent_options_have_a_short_form(command: str) -> None:
    options = {p.opts[0]: p.opts for c, p in PAGES if c == command}
    for long, short in SHORT.items():
        if long in options:
            assert options[long] == [long, short]
    assert {"--method", "--output", "--layers", "--block"} <= options.keys()


def test_short_forms_take_the_same_values(cli: Cli) -> None:
    long = cli("explain", "none.jpg", "--method", "gradcan", "--block", -1)
    assert long.err == cli("explain", "none.jpg", "-m", "gradcan", "-b", -1).err
    assert "gradcan" in long.err
