"""Read the columns and rows of a figure, such as `image,stage1..5,fused`.

A column is `image`, or one or more *terms* joined by `@`. A term names a model, a method, a layer,
a part of a method or a class; the options of the command give what no term names::

    semantic@top:3        the semantic map of each of the three most likely classes
    gradcam@stage4        Grad-CAM at stage 4
    layercam@model:F.pth  LayerCAM of another network

Words that more than one kind could mean have a prefix, such as `class:espresso`. Nothing here
imports torch, so that a mistyped column answers at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from camcli.core.errors import UsageError, format_suggestion
from camcli.engine.targets import DEFAULT_TARGET, parse_target
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import METHODS, Method, normalize_method_name

RANGE = re.compile(r"([A-Za-z_][^\d-]*)(\d{1,4})(?:\.\.|-)(?:\1)?(\d{1,4})")
# As `--layers` takes them: stages and blocks by number, from the end (-2), and names with ranges
# or patterns (blocks.0..11.norm1, blocks.*.norm1).
LAYER_WORD = re.compile(
    r"last|(?:stages? ?|block ?)-?\d+(?:(?:\.\.|-)-?\d+)?|-\d+(?:\.\.-\d+)?"
    r"|[A-Za-z_]\w*(?:\.(?:\w|[*?-]|\.\.\d)+)+(?:\[\d+\])?"
)
CLASS_WORD = re.compile(r"predicted|folder|(?:top|above|finer):.*|.+-vs-.+|@.+", re.DOTALL)
LAYERS, BLOCKS, FUSED, IMAGE = "layers", "blocks", "fused", "image"
ALL_BLOCKS = "block 0..-1"  # what `blocks` is for `--layers`
SPOTLIGHT, CUTOUT = "spotlight", "cutout"  # how a map is drawn, if not over the image
DRAWINGS = (SPOTLIGHT, CUTOUT)
KEYWORDS = (IMAGE, FUSED, *DRAWINGS, LAYERS, BLOCKS, "parts", "methods", "models", "classes")
PREFIXES = ("layer", "method", "part", "class", "model")
MAX_RANGE = 1000  # columns of one range; a typing error must not fill the memory


@dataclass(frozen=True, slots=True)
class CellSpec:
    """What a column or a row shows; None where it does not say.

    `layers` is the name of a layer, `block N`, or one of `layers` and `blocks`. `target` is a value
    of `--target`. `fused` asks for the map that joins the layers of the other columns. `drawing` is
    one of `DRAWINGS`.
    """

    text: str
    image: bool = False
    model: str | None = None
    method: Method | None = None
    layers: str | None = None
    part: str | None = None
    target: str | None = None
    fused: bool = False
    drawing: str | None = None

    def find_shared_field(self, other: CellSpec) -> str | None:
        """The first field that both name; an image shares every field."""
        if self.image or other.image:
            return IMAGE
        return next((f for f in _FIELDS if getattr(self, f) and getattr(other, f)), None)

    def join(self, other: CellSpec) -> CellSpec:
        """What a cell shows that lies in this row and in the other column.

        A column that shares a field with the row stands alone.
        """
        if self.find_shared_field(other):
            return other
        found: dict[str, Any] = {f: getattr(self, f) or getattr(other, f) for f in _FIELDS}
        return CellSpec("@".join(filter(None, (self.text, other.text))), **found)


_FIELDS = tuple(f.name for f in fields(CellSpec) if f.name not in ("text", IMAGE))


@dataclass(frozen=True, slots=True)
class ColumnWords:
    """The lists that the words `methods`, `models` and `classes` stand for."""

    methods: Sequence[Method] = ()
    models: Sequence[str] = ()
    targets: Sequence[str] = (DEFAULT_TARGET,)

    @property
    def has_parts(self) -> bool:
        """Whether a word such as `attention` may be a part of a chosen method."""
        return any("part" in method.choices for method in self.methods)


def parse_cell_specs(option: str, texts: Sequence[str], words: ColumnWords) -> list[CellSpec]:
    """Read the columns of `--columns`, or the rows of `--rows`, separated by commas.

    Raises UsageError for a word that names nothing, or more than one thing.
    """
    listed = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not listed:
        raise UsageError(f"{option} is empty; write a list such as image,stage1..5,fused")
    try:
        return [spec for text in listed for spec in _iter_column(text, words)]
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def _iter_column(text: str, words: ColumnWords) -> Iterator[CellSpec]:
    """The columns that one text stands for: `stage1..5` for five, `methods` for several."""
    found = [CellSpec("")]
    for term in re.split(r"(?<=[^:])@", text):
        choices = list(_iter_term(term.strip(), words))
        if len(found) * len(choices) > MAX_RANGE:
            raise UsageError(f"{text} gives more than {MAX_RANGE} columns")
        found = [_join_terms(text, first, second) for first in found for second in choices]
    yield from found


def _join_terms(text: str, first: CellSpec, second: CellSpec) -> CellSpec:
    shared = first.find_shared_field(second) if first.text else None
    if shared:
        raise UsageError(f"{text} names two things of one kind ({shared}); leave one out")
    return first.join(second) if first.text else second


def _iter_term(term: str, words: ColumnWords) -> Iterator[CellSpec]:
    prefix, colon, value = term.partition(":")
    if colon and prefix in PREFIXES:
        yield from _iter_prefixed(term, prefix, value.strip(), words)
    elif term in KEYWORDS:
        yield from _iter_keyword(term, words)
    elif term == "all":
        raise UsageError("all: write class:all or layer:all")
    elif (ranged := RANGE.fullmatch(term)) and LAYER_WORD.fullmatch(f"{ranged[1]}{ranged[2]}"):
        yield from (CellSpec(name, layers=name) for name in _expand_range(term, ranged))
    elif LAYER_WORD.fullmatch(term):
        yield CellSpec(term, layers=_normalize_block(term))
    elif CLASS_WORD.fullmatch(term):
        yield _create_class(term, term)
    else:
        yield _find_bare_word(term, words)


def _iter_prefixed(term: str, prefix: str, value: str, words: ColumnWords) -> Iterator[CellSpec]:
    if not value:
        raise UsageError(f"{term} names no {prefix}")
    if prefix == "layer":
        yield CellSpec(term, layers=_normalize_block(value))
    elif prefix == "method":
        yield from (CellSpec(value, method=method) for method in parse_methods([value]))
    elif prefix == "part":
        yield _create_part(value, words)
    elif prefix == "class":
        yield _create_class(term, value)
    else:
        yield CellSpec(term, model=value)


def _iter_keyword(word: str, words: ColumnWords) -> Iterator[CellSpec]:
    if word == IMAGE:
        yield CellSpec(IMAGE, image=True)
    elif word == FUSED:
        yield CellSpec(FUSED, fused=True)
    elif word in DRAWINGS:
        yield CellSpec(word, drawing=word)
    elif word in (LAYERS, BLOCKS):
        yield CellSpec(word, layers=word)
    elif word == "classes":
        yield from (_create_class(target, target) for target in words.targets)
    elif word == "parts":
        yield from (_create_part(part, words) for part in list_parts(words.methods))
    else:
        yield from _iter_listed(word, words)


def _iter_listed(word: str, words: ColumnWords) -> Iterator[CellSpec]:
    if not (words.methods if word == "methods" else words.models):
        raise UsageError(f"{word}: name them with --{word.removesuffix('s')}")
    if word == "methods":
        yield from (CellSpec(method.name, method=method) for method in words.methods)
    else:
        yield from (CellSpec(f"model:{name}", model=name) for name in words.models)


def find_part_method(methods: Sequence[Method]) -> Method:
    """The first method that has parts; without methods, the first of all. Raises UsageError."""
    found = next((m for m in methods or METHODS.values() if "part" in m.choices), None)
    if found is None:
        raise UsageError(f"parts: {', '.join(m.name for m in methods)} has no parts")
    return found


def list_parts(methods: Sequence[Method]) -> list[str]:
    """The parts of the first method that has parts, its joint map last."""
    method = find_part_method(methods)
    return sorted(method.choices["part"], key=lambda part: part == method.caption)


def _create_part(part: str, words: ColumnWords) -> CellSpec:
    parts = list_parts(words.methods)
    if part not in parts:
        raise UsageError(f"part:{part}: no such part (there are {', '.join(parts)})")
    return CellSpec(part, part=part)


def _create_class(text: str, target: str) -> CellSpec:
    parse_target(target)  # refuses an unknown rule
    return CellSpec(text, target=target)


def _find_bare_word(word: str, words: ColumnWords) -> CellSpec:
    """A word without a prefix: a part of a chosen method, or a method."""
    method_names = {normalize_method_name(name) for name in METHODS}
    is_method = normalize_method_name(word.partition(":")[0]) in method_names
    is_part = word in list_parts(()) and (words.has_parts or not words.methods)
    if is_method and is_part and words.has_parts:
        raise UsageError(f"{word} may be two things: write part:{word} or method:{word}")
    if is_part and not is_method:
        return _create_part(word, words)
    if is_method:
        (method,) = parse_methods([word])
        return CellSpec(word, method=method)
    near = format_suggestion(word, [*KEYWORDS, *METHODS, *list_parts(())])
    raise UsageError(
        f"no column {word!r}{near} (for other names write layer:, method:, part:, class: or model:)"
    )


def _expand_range(text: str, ranged: re.Match[str]) -> list[str]:
    first, last = int(ranged[2]), int(ranged[3])
    if not first <= last < first + MAX_RANGE:
        raise UsageError(f"{text}: write the smaller number first, such as stage1..5")
    return [_normalize_block(f"{ranged[1]}{number}") for number in range(first, last + 1)]


def _normalize_block(word: str) -> str:
    """`block3` and `block 3` are the same."""
    return re.sub(r"block ?(-?\d+)", r"block \1", word) if word.startswith("block") else word
