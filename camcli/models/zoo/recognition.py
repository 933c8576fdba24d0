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

from camcli.models.zoo.signatures import (
    Shapes,
    Signature,
    create_signature_rows,
    find_layer_keys,
    rows_to_signature,
)

SIGNATURES_FILE = Path(__file__).parent / "signatures.json"
MAX_KEYS = 10_000  # keys; the longest of timm's networks has 3108, its teacher as many
MAX_PREFIX_DEPTH = 4  # module.model.backbone.encoder.: no deeper
TRAINING_COUNTERS = ("n_averaged", "epoch", "step")  # numbers that training keeps
MAX_PREFIXES = (
    4  # a prefix is one that a fourth of the keys have: student and teacher, query and key
)


@dataclass(frozen=True, slots=True)
class ArchitectureMatch:
    """What a state is of, as far as shapes tell.

    `candidates` have its names and shapes, best first; `name` is one of them, or None where they
    compute different things. `prefix` is in front of the architecture's own keys; `classes` is None
    for a network without a classifier. Of the keys without the prefix, `heads` are layers that
    classify, and `beside` begin those that are no part of it.
    """

    name: str | None
    candidates: tuple[str, ...]
    class_count: int | None
    prefix: str
    head_layers: tuple[str, ...] = ()
    extra_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchitectureEntry:
    """An architecture; those of one trunk that have equal `behaviour` are one function."""

    name: str
    exact: str
    behavior_id: int


@dataclass(frozen=True, slots=True)
class SignatureIndex:
    """Every architecture by its trunk, best name first; every set of layers that classifies."""

    versions: Mapping[str, str]
    classifier_layers: tuple[tuple[str, ...], ...]
    entries_by_trunk: Mapping[str, tuple[ArchitectureEntry, ...]]

    def find_entries(self, mark: Signature) -> tuple[ArchitectureEntry, ...]:
        """Those that fit tensor for tensor, else those that fit but for the image's size."""
        same = self.entries_by_trunk.get(mark.trunk, ())
        return tuple(entry for entry in same if entry.exact == mark.exact) or same


@dataclass(frozen=True, slots=True)
class StateView:
    """A state without a prefix; `beside` are the shapes that did not have it."""

    prefix: str
    shapes: Shapes
    other_shapes: Shapes = field(default_factory=dict)


@cache
def load_signature_index() -> SignatureIndex:
    """The index that ships with camcli."""
    said = json.loads(SIGNATURES_FILE.read_text(encoding="utf-8"))
    return SignatureIndex(
        said["versions"],
        tuple(tuple(layers) for layers in said["classifiers"]),
        {
            trunk: tuple(ArchitectureEntry(*row) for row in rows)
            for trunk, rows in said["trunks"].items()
        },
    )


def find_architecture(shapes: Shapes, hints: Sequence[str] = ()) -> ArchitectureMatch | None:
    """The architecture of a state with these keys and shapes; None where none is known.

    Hints are names that may hold the architecture's, the surest first: from metadata, from the
    file's name. They choose among what the shapes allow, and nothing else.
    """
    if len(shapes) > MAX_KEYS:
        return None
    for view in iter_state_views(shapes):
        kept = create_signature_rows(view.shapes)
        for dropped in iter_classifier_keys(view.shapes):
            found = load_signature_index().find_entries(rows_to_signature(kept, dropped))
            if found:
                return _create_match(view, dropped, found, choose_architecture_name(found, hints))
    return None


def _create_match(
    view: StateView, dropped: tuple[str, ...], found: Sequence[ArchitectureEntry], name: str | None
) -> ArchitectureMatch:
    """With as many classes as the classifier has, or one that sits beside a trunk of a prefix."""
    counts = _find_class_counts(view.shapes, dropped)
    heads = () if counts else _find_head_layers(view.other_shapes)
    counts = counts or _find_class_counts(
        view.other_shapes, find_layer_keys(view.other_shapes, heads)
    )
    beside = dict.fromkeys(key.partition(".")[0] for key in view.other_shapes)
    return ArchitectureMatch(
        name,
        tuple(entry.name for entry in found),
        next(iter(counts), None),
        view.prefix,
        heads,
        tuple(part for part in beside if part not in heads and part not in TRAINING_COUNTERS),
    )


def iter_state_views(shapes: Shapes) -> Iterator[StateView]:
    """The state as it is, then without the prefixes that many of its keys share, shortest first."""
    level = [StateView("", shapes)]
    for _ in range(MAX_PREFIX_DEPTH + 1):
        yield from level
        level = [inner for view in level for inner in _iter_inner_views(view)]


def _iter_inner_views(view: StateView) -> Iterator[StateView]:
    """Without each leading component that is common enough, commonest first."""
    parts = Counter(key.partition(".")[0] for key in view.shapes if "." in key)
    for part, count in parts.most_common(MAX_PREFIXES):
        if count * MAX_PREFIXES >= len(view.shapes):
            start = f"{part}."
            inner = {key: view.shapes[key] for key in find_layer_keys(view.shapes, [part])}
            beside = {key: view.shapes[key] for key in view.shapes if key not in inner}
            bare = {key.removeprefix(start): shape for key, shape in inner.items()}
            yield StateView(view.prefix + start, bare, {**view.other_shapes, **beside})


def iter_classifier_keys(shapes: Shapes) -> Iterator[tuple[str, ...]]:
    """The keys of each classifier that this state may have: none, then the fewest first."""
    found = {find_layer_keys(shapes, layers) for layers in load_signature_index().classifier_layers}
    yield from sorted(found | {()}, key=lambda keys: (len(keys), keys))


def _find_head_layers(shapes: Shapes) -> tuple[str, ...]:
    """The layers that classify, of any architecture, that have keys here."""
    layers = dict.fromkeys(
        layer for known in load_signature_index().classifier_layers for layer in known
    )
    return tuple(layer for layer in layers if find_layer_keys(shapes, [layer]))


def _find_class_counts(shapes: Shapes, keys: Sequence[str]) -> list[int]:
    """The rows of these layers, linear or convolution, from the last."""
    weights = [shapes[key] for key in reversed(keys) if key.endswith(".weight")]
    return [shape[0] for shape in weights if len(shape) in (2, 4)]


def choose_architecture_name(
    entries: Sequence[ArchitectureEntry], hints: Iterable[str]
) -> str | None:
    """The one that a hint names, else the best if they are all one function, else none."""
    for hint in hints:
        named = [
            entry.name
            for entry in entries
            if _normalize_model_name(entry.name) in _normalize_separators(hint)
        ]
        if named:
            return max(named, key=lambda name: len(_normalize_model_name(name)))
    one = len({entry.behavior_id for entry in entries}) == 1
    return entries[0].name if one else None


def _normalize_model_name(name: str) -> str:
    return _normalize_separators(name.partition(":")[2] or name)


def _normalize_separators(text: str) -> str:
    """As names are compared: ViT-Tiny/patch16 -> vit_tiny_patch16."""
    return re.sub(r"[-./\\\s]", "_", text.casefold())
