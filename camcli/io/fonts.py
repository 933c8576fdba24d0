"""Fonts: find one that has the characters of a text, and fit text into a width."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

from camcli.core.errors import to_one_line

OWN_FONT = Path("fonts", "ttf", "DejaVuSans.ttf")  # in the data of matplotlib
# DejaVu Sans has all printable characters of Latin-1, and these: dashes, quotes, the ellipsis, an
# arrow and the minus sign.
LAST_LATIN_CHARACTER = "\u00ff"
PUNCTUATION = frozenset("\u2013\u2014\u2018\u2019\u201c\u201d\u2026\u2192\u2212")
FONT_PACKAGE = "fonts-noto-cjk"
# Tried first for characters that DejaVu lacks, such as Chinese ones.
PREFERRED_FONTS = ("notosanscjk", "notosanssc", "pingfang", "msyh", "wqy-microhei", "simhei")


def find_font(size: int, text: str) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, or an installed font that has all characters of the text."""
    return _load_font(size, _find_font_file(_list_missing_characters(text)) or _find_own_font())


def can_draw_text(text: str) -> bool:
    """Whether an installed font has all characters of the text."""
    return _find_font_file(_list_missing_characters(text)) is not None


def find_undrawable_name(names: Iterable[str]) -> str | None:
    """The first name that no installed font can draw, or None."""
    return next((name for name in names if not can_draw_text(name)), None)


def compute_text_size(size: tuple[int, int]) -> int:
    """The size of text on a picture of this size, in pixels."""
    return max(11, min(36, min(size) // 20, size[0] // 18))


def shorten_text(text: str, font: ImageFont.FreeTypeFont, max_width: float) -> str:
    """The text in one line, cut to a width in pixels."""
    text = to_one_line(text)
    if font.getlength(text) <= max_width:
        return text
    while text and font.getlength(f"{text}…") > max_width:
        text = text[:-1]
    return f"{text}…" if text else ""


def _list_missing_characters(text: str) -> str:
    """The characters that DejaVu Sans lacks, each once, in order."""
    if all(c <= LAST_LATIN_CHARACTER or c in PUNCTUATION for c in text):
        return ""  # to read the font would take matplotlib
    own = _read_characters(_find_own_font())
    return "".join(sorted({c for c in text if c.isprintable() and ord(c) not in own}))


@lru_cache(maxsize=4096)
def _find_font_file(missing: str) -> str | None:
    """The file of a font for these characters, or None; DejaVu Sans if there are none."""
    if not missing:
        return _find_own_font()
    needed = {ord(c) for c in missing}
    return next((f for f in _list_font_files() if needed <= _read_extra_characters(f)), None)


@lru_cache
def _list_font_files() -> list[str]:
    """All installed fonts, the preferred ones first."""
    from matplotlib.font_manager import findSystemFonts

    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.casefold()
        places = [n for n, known in enumerate(PREFERRED_FONTS) if name.startswith(known)]
        return (places or [len(PREFERRED_FONTS)])[0], path

    return sorted(findSystemFonts(), key=rank)


def list_preferred_font_files() -> list[str]:
    """The installed fonts that are known to have Chinese characters."""
    names = {path: Path(path).name.casefold() for path in _list_font_files()}
    return [path for path, name in names.items() if name.startswith(PREFERRED_FONTS)]


@cache
def _read_extra_characters(path: str) -> frozenset[int]:
    """The characters of a font that DejaVu Sans lacks."""
    return _read_characters(path) - _read_characters(_find_own_font())


@lru_cache(maxsize=4)
def _read_characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # not a font, or a kind that FreeType cannot read
        return frozenset()


@lru_cache(maxsize=1)
def _find_own_font() -> str:
    """The DejaVu Sans of matplotlib's package; `find_spec` does not run the package."""
    spec = find_spec("matplotlib")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "mpl-data" / OWN_FONT
        if path.is_file():
            return str(path)
    import matplotlib  # some systems keep the data elsewhere

    return str(Path(matplotlib.get_data_path()) / OWN_FONT)


@lru_cache
def _load_font(size: int, path: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
