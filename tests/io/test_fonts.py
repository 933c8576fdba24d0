"""Fonts: a text is drawn with a font that has its characters, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
from conftest import PHOTOS, Cli

from camcli.io import fonts
from camcli.io.fonts import can_draw_text, find_font, find_undrawable_name

OWN = Path(matplotlib.get_data_path()) / "fonts/ttf"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The only installed fonts; none at first."""
    files: list[str] = []
    fonts._list_font_files.cache_clear()
    fonts._find_font_file.cache_clear()
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: files)
    yield files
    fonts._list_font_files.cache_clear()
    fonts._find_font_file.cache_clear()


def test_latin_and_greek_need_no_other_font(installed: list[str]) -> None:
    assert can_draw_text("tabby, crème brûlée, λάμδα …")
    assert find_undrawable_name(["tabby", "Привет"]) is None
    assert Path(str(find_font(12, "tabby").path)).name == "DejaVuSans.ttf"
    assert installed == []


def test_what_is_not_looked_up_is_in_the_font() -> None:
    """Latin-1 and some punctuation are taken for granted."""
    own = fonts._read_characters(fonts._find_own_font())
    latin = {chr(n) for n in range(ord(fonts.LAST_LATIN_CHARACTER) + 1)}
    assert {ord(c) for c in latin | fonts.PUNCTUATION if c.isprintable()} <= own


def test_the_own_font_is_that_of_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    assert Path(fonts._find_own_font()).samefile(wanted)
    monkeypatch.setattr(fonts, "find_spec", lambda _name: None)  # the data lies elsewhere
    assert Path(fonts._find_own_font.__wrapped__()).samefile(wanted)


def test_a_text_that_no_font_has(installed: list[str]) -> None:
    assert not can_draw_text("猫")
    assert find_undrawable_name(["cat", "猫", "狗"]) == "猫"
    assert Path(str(find_font(12, "猫").path)).name == "DejaVuSans.ttf"


def test_an_installed_font_that_has_the_characters_is_found(
    installed: list[str], tmp_path: Path
) -> None:
    rare = "\U0001d4d0"  # a script capital: STIX has it, DejaVu Sans has not
    assert not can_draw_text(rare)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    installed += [str(tmp_path / "broken.ttf"), str(OWN / "STIXNonUni.ttf")]
    installed += [str(OWN / "STIXGeneral.ttf")]
    fonts._list_font_files.cache_clear()
    fonts._find_font_file.cache_clear()
    assert can_draw_text(rare)
    assert Path(str(find_font(12, rare).path)).name == "STIXGeneral.ttf"


def test_names_that_cannot_be_drawn_are_told_once(
    cli: Cli, installed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("猫\n" * 1000, encoding="utf-8")
    plain = ("explain", *PHOTOS[:2], "--labels", "names.txt", "--output", "o", "--overwrite")
    ran = cli(*plain)
    assert ran.status == 0
    assert ran.err.count("fonts-noto-cjk") == 1
    assert "'猫'" in ran.err
    assert "fonts-noto-cjk" not in cli(*plain, "--save", "boxes,array").err
