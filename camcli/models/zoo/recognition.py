"""Which architecture a file of weights is of, by the names and shapes of its tensors alone.

Knows nothing of tensors, files or networks; what timm and torchvision have is in signatures.json,
which `python benchmarks/signatures.py` writes.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from camcli.models.zoo.signatures import Shapes, Signature, marks, rows, under

FILE = Path(__file__).parent / "signatures.json"
LARGEST = 10_000  # keys; the longest of timm's networks has 3108, its teacher as many
WRAPPED = 4  # module.model.backbone.encoder.: no deeper
PASSING = ("n_averaged", "epoch", "step")  # numbers that training keeps
SHARE = 4  # a prefix is one that a fourth of the keys have: student and teacher, query and key


@dataclass(frozen=True, slots=True)
class Recognised:
    """What a state is of, as far as shapes tell.

    `candidates` have its names and shapes, best first; `name` is one of them, or None where they
    compute different things. `prefix` is in front of the architecture's own keys; `classes` is None
    for a network without a classifier. Of the keys without the prefix, `heads` are layers that
    classify, and `beside` begin those that are no part of it.
    """

    name: str | None
    candidates: tuple[str, ...]
    classes: int | None
    prefix: str
    heads: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """An architecture; those of one trunk that have equal `behaviour` are one function."""

    name: str
    exact: str
    behaviour: int


@dataclass(frozen=True, slots=True)
class Index:
    """Every architecture by its trunk, best name first; every set of layers that classifies."""

    versions: Mapping[str, str]
    classifiers: tuple[tuple[str, ...], ...]
    trunks: Mapping[str, tuple[Entry, ...]]

    def equal(self, mark: Signature) -> tuple[Entry, ...]:
        """Those that fit tensor for tensor, else those that fit but for the image's size."""
        same = self.trunks.get(mark.trunk, ())
        return tuple(entry for entry in same if entry.exact == mark.exact) or same


@dataclass(frozen=True, slots=True)
class View:
    """A state without a prefix; `beside` are the shapes that did not have it."""

    prefix: str
    shapes: Shapes
    beside: Shapes = field(default_factory=dict)


@cache
def index() -> Index:
    """The index that ships with camcli."""
    said = json.loads(FILE.read_text(encoding="utf-8"))
    return Index(
        said["versions"],
        tuple(tuple(layers) for layers in said["classifiers"]),
        {trunk: tuple(Entry(*row) for row in rows) for trunk, rows in said["trunks"].items()},
    )


def recognise(shapes: Shapes, hints: Sequence[str] = ()) -> Recognised | None:
    """The architecture of a state with these keys and shapes; None where none is known.

    Hints are names that may hold the architecture's, the surest first: from metadata, from the
    file's name. They choose among what the shapes allow, and nothing else.
    """
    if len(shapes) > LARGEST:
        return None
    for view in views(shapes):
        kept = rows(view.shapes)
        for dropped in droppable(view.shapes):
            found = index().equal(marks(kept, dropped))
            if found:
                return _recognised(view, dropped, found, chosen(found, hints))
    return None


def _recognised(
    view: View, dropped: tuple[str, ...], found: Sequence[Entry], name: str | None
) -> Recognised:
    """With as many classes as the classifier has, or one that sits beside a trunk of a prefix."""
    counts = _counts(view.shapes, dropped)
    heads = () if counts else _heads(view.beside)
    counts = counts or _counts(view.beside, under(view.beside, heads))
    beside = dict.fromkeys(key.partition(".")[0] for key in view.beside)
    return Recognised(
        name,
        tuple(entry.name for entry in found),
        next(iter(counts), None),
        view.prefix,
        heads,
        tuple(part for part in beside if part not in heads and part not in PASSING),
    )


def views(shapes: Shapes) -> Iterator[View]:
    """The state as it is, then without the prefixes that many of its keys share, shortest first."""
    level = [View("", shapes)]
    for _ in range(WRAPPED + 1):
        yield from level
        level = [inner for view in level for inner in _inside(view)]


def _inside(view: View) -> Iterator[View]:
    """Without each leading component that is common enough, commonest first."""
    parts = Counter(key.partition(".")[0] for key in view.shapes if "." in key)
    for part, count in parts.most_common(SHARE):
        if count * SHARE >= len(view.shapes):
            start = f"{part}."
            inner = {key: view.shapes[key] for key in under(view.shapes, [part])}
            beside = {key: view.shapes[key] for key in view.shapes if key not in inner}
            bare = {key.removeprefix(start): shape for key, shape in inner.items()}
            yield View(view.prefix + start, bare, {**view.beside, **beside})


def droppable(shapes: Shapes) -> Iterator[tuple[str, ...]]:
    """The keys of each classifier that this state may have: none, then the fewest first."""
    found = {under(shapes, layers) for layers in index().classifiers}
    yield from sorted(found | {()}, key=lambda keys: (len(keys), keys))


def _heads(shapes: Shapes) -> tuple[str, ...]:
    """The layers that classify, of any architecture, that have keys here."""
    layers = dict.fromkeys(layer for known in index().classifiers for layer in known)
    return tuple(layer for layer in layers if under(shapes, [layer]))


def _counts(shapes: Shapes, keys: Sequence[str]) -> list[int]:
    """The rows of these layers, linear or convolution, from the last."""
    weights = [shapes[key] for key in reversed(keys) if key.endswith(".weight")]
    return [shape[0] for shape in weights if len(shape) in (2, 4)]


def chosen(entries: Sequence[Entry], hints: Iterable[str]) -> str | None:
    """The one that a hint names, else the best if they are all one function, else none."""
    for hint in hints:
        named = [entry.name for entry in entries if _bare(entry.name) in _plain(hint)]
        if named:
            return max(named, key=lambda name: len(_bare(name)))
    one = len({entry.behaviour for entry in entries}) == 1
    return entries[0].name if one else None


def _bare(name: str) -> str:
    return _plain(name.partition(":")[2] or name)


def _plain(text: str) -> str:
    """As names are compared: ViT-Tiny/patch16 -> vit_tiny_patch16."""
    return re.sub(r"[-./\\\s]", "_", text.casefold())
