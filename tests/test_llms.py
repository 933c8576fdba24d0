"""`llms.txt` and `docs/SKILL.md`, which programs read: https://llmstxt.org"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from camcli.cli.lazy_commands import load_command
from camcli.core.types import STATUS_TEXTS

ROOT = Path(__file__).parent.parent
LISTING = (ROOT / "llms.txt").read_text(encoding="utf-8")
SKILL = (ROOT / "docs" / "SKILL.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"- \[([^]]+)\]\(([^)\s]+)\): \S.*")
LINKS = [found[2] for found in ENTRY.finditer(LISTING)]


def test_the_listing_has_the_form_of_llmstxt() -> None:
    title, blank, summary, *others = LISTING.splitlines()
    assert (title, blank) == ("# camcli", "")
    assert re.match(r"> \S", summary)
    heads = [number for number, line in enumerate(others) if line.startswith("#")]
    assert [others[number] for number in heads] == ["## Docs", "## Optional"]
    entries = [line for line in others[heads[0] :] if line and not line.startswith("#")]
    assert all(ENTRY.fullmatch(line) for line in entries)


@pytest.mark.parametrize("link", LINKS)
def test_a_linked_page_is_there(link: str) -> None:
    path = ROOT / link
    assert path.is_file()
    assert path.resolve().is_relative_to(ROOT.resolve())


def test_every_english_page_is_linked_once() -> None:
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages - {"docs/README.md", "docs/zh.md"} <= {*LINKS}
    assert len(LINKS) == len({*LINKS})


def test_the_skill_has_a_name_and_a_description() -> None:
    _, front, page = SKILL.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter.keys() == {"name", "description"}
    assert re.fullmatch(r"[a-z0-9-]{1,64}", matter["name"])
    assert 0 < len(matter["description"]) <= 1024
    assert len(page.splitlines()) < 110  # one page


def test_the_skill_explains_each_status() -> None:
    for status in ("ok", *STATUS_TEXTS):
        assert f"| `{status}` |" in SKILL


def test_every_option_of_the_skill_exists() -> None:
    known = {
        name
        for command in ("explain", "compare", "methods")
        for parameter in load_command(command).params
        for name in parameter.opts
    }
    evaluate = load_command("evaluate").commands["faithfulness"]  # type: ignore[union-attr]  # a group
    known |= {name for parameter in evaluate.params for name in parameter.opts}
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", SKILL)} <= known
