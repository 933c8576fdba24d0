"""Fit the texts of a sheet into their places, with fonts for every script that is installed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties

from camcli.core.errors import to_one_line
from camcli.io.fonts import list_preferred_font_files

# Fonts with Chinese, Japanese and Korean glyphs; matplotlib takes each missing glyph from them.
FALLBACK_FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC"),
    *("Microsoft YaHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "Arial Unicode MS"),
)


@lru_cache
def list_fonts() -> tuple[str, ...]:
    """DejaVu Sans, then the installed fonts for other scripts."""
    installed = _list_families()
    if installed.isdisjoint(FALLBACK_FAMILIES):
        # matplotlib keeps a list of fonts, which may be older than a font that was just installed.
        for path in list_preferred_font_files():
            with suppress(OSError, RuntimeError):
                font_manager.fontManager.addfont(path)
        installed = _list_families()
    return ("DejaVu Sans", *(name for name in FALLBACK_FAMILIES if name in installed))


def _list_families() -> set[str]:
    return {font.name for font in font_manager.fontManager.ttflist}


def fit_label(
    texts: Sequence[str], points: float, dpi: int, width: float, line_count: int
) -> list[str]:
    """The lines of a label; the first text takes the lines that the others leave."""
    texts = [text for text in texts if text]
    if not texts:
        return []
    own = max(1, line_count - len(texts) + 1)
    lines = fit_lines(texts[0], points, dpi, width, own)
    for text in texts[1:]:
        lines += fit_lines(text, points, dpi, width, 1)
    return lines[:line_count]


def fit_lines(text: str, points: float, dpi: int, width: float, count: int) -> list[str]:
    """Break a text into at most `count` lines of `width` pixels; the last one may end in `…`."""
    text = to_one_line(text)
    if not text or measure_text(text, points, dpi) <= width:
        return [text]
    if count == 1:
        return [_cut_text(text, points, dpi, width)]
    end = _find_line_end(text, points, dpi, width)
    rest = fit_lines(text[end:].lstrip(), points, dpi, width, count - 1)
    return [text[:end].rstrip(), *rest]


def fit_scored_label(
    label: str, score: str, points: float, dpi: int, width: float, count: int
) -> list[str]:
    """Break a label as `fit_lines` does; the score follows, and is never cut."""
    *lines, last = fit_lines(label, points, dpi, width, count)
    joined = f"{last} {score}".strip()
    if measure_text(joined, points, dpi) <= width:
        return [*lines, joined]
    return [*lines, last, score] if score else [*lines, last]


def _find_line_end(text: str, points: float, dpi: int, width: float) -> int:
    """Where a line of text ends: after the last word, or part of a name, that fits."""
    size = _find_fitting_size(text, points, dpi, width)
    ends = [found.end() for found in re.finditer(r"[^ _./-](?=[ ])|[_./-]+", text[: size + 1])]
    return max((end for end in ends if end <= size), default=size)


def _cut_text(text: str, points: float, dpi: int, width: float) -> str:
    room = width - measure_text("…", points, dpi)
    return f"{text[: _find_fitting_size(text, points, dpi, room)].rstrip()}…"


def _find_fitting_size(text: str, points: float, dpi: int, width: float) -> int:
    """The number of characters that fit; at least one."""
    size = min(len(text), 4 + int(width * 72 / (dpi * points * 0.2)))
    while size > 1 and measure_text(text[:size], points, dpi) > width:
        size -= 1
    return size


def lacks_glyphs(text: str) -> bool:
    """Whether no installed font has one of the characters."""
    return not _find_characters().issuperset(map(ord, to_one_line(text)))


@lru_cache
def _find_characters() -> frozenset[int]:
    """The characters of all fonts of a sheet."""
    paths = [font_manager.findfont(FontProperties(family=name)) for name in list_fonts()]
    return frozenset(code for path in paths for code in font_manager.get_font(path).get_charmap())


@lru_cache(4096)
def measure_text(text: str, points: float, dpi: int) -> float:
    """The width of a text in pixels."""
    font = FontProperties(family=list_fonts(), size=points)
    with ignore_missing_glyphs():
        width: float = _create_renderer(dpi).get_text_width_height_descent(text, font, False)[0]
    return width


@contextmanager
def ignore_missing_glyphs() -> Iterator[None]:
    """Inside the context, a character that no font has becomes an empty square, without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@lru_cache
def _create_renderer(dpi: int) -> Any:
    return RendererAgg(1, 1, dpi)  # type: ignore[no-untyped-call]
