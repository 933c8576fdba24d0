"""Identify the architecture of a file of weights by the names and shapes of its tensors.

signatures.json lists the architectures of timm and torchvision. benchmarks/signatures.py writes it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path

from camcli.models.zoo.libraries import find_library
from camcli.models.zoo.signatures import (
    Shapes,
    Signature,
    create_signature_rows,
    find_layer_keys,
    rows_to_signature,
)

SIGNATURES_FILE = Path(__file__).parent / "signatures.json"
MAX_KEYS = 10_000  # the largest network of timm has 3108; a file may hold it twice
MAX_PREFIX_DEPTH = 4  # for example module.model.backbone.encoder.
TRAINING_COUNTERS = ("n_averaged", "epoch", "step")  # counters that training saves
MIN_PUBLISHED = 6  # weights for each one of the next function that has the same shapes
MAX_PREFIXES = 4  # a prefix must have a fourth of the keys: a file may hold a student and a teacher


@dataclass(frozen=True, slots=True)
class ArchitectureMatch:
    """The architectures that fit a state.

    `candidates` have the same keys and shapes, best first. `name` is one of them, or None if they
    compute different things. `rare_names` are candidates that compute something else than `name`,
    but are hardly used. `prefix` precedes the architecture's own keys. `class_count` is None
    for a network without a classifier. Of the keys without the prefix, `head_layers` are those of a
    classifier, and `extra_parts` are the first components of all others.
    """

    name: str | None
    candidates: tuple[str, ...]
    class_count: int | None
    prefix: str
    head_layers: tuple[str, ...] = ()
    extra_parts: tuple[str, ...] = ()
    rare_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchitectureEntry:
    """An architecture; entries of one trunk with equal `behavior_id` compute the same function."""

    name: str
    exact: str
    behavior_id: int


@dataclass(frozen=True, slots=True)
class SignatureIndex:
    """Every architecture by its trunk, best name first; all sets of classifier layers and stems.

    A stem is the convolutions that read the image; they have three input channels in the index.
    """

    versions: Mapping[str, str]
    classifier_layers: tuple[tuple[str, ...], ...]
    stems: tuple[tuple[str, ...], ...]
    entries_by_trunk: Mapping[str, tuple[ArchitectureEntry, ...]]

    def find_entries(self, mark: Signature) -> tuple[ArchitectureEntry, ...]:
        """The entries with exactly these shapes, or else the entries for another image size."""
        same = self.entries_by_trunk.get(mark.trunk, ())
        return tuple(entry for entry in same if entry.exact == mark.exact) or same


@dataclass(frozen=True, slots=True)
class StateView:
    """The shapes under a prefix, without it; `other_shapes` are those that do not have it."""

    prefix: str
    shapes: Shapes
    other_shapes: Shapes = field(default_factory=dict)


@cache
def load_signature_index() -> SignatureIndex:
    """The index that ships with camcli."""
    content = json.loads(SIGNATURES_FILE.read_text(encoding="utf-8"))
    return SignatureIndex(
        content["versions"],
        tuple(tuple(layers) for layers in content["classifiers"]),
        tuple(tuple(layers) for layers in content["stems"]),
        {
            trunk: tuple(ArchitectureEntry(*row) for row in rows)
            for trunk, rows in content["trunks"].items()
        },
    )


def find_architecture(shapes: Shapes, hints: Sequence[str] = ()) -> ArchitectureMatch | None:
    """The architecture with these keys and shapes, or None.

    Hints are texts that may contain its name, the most reliable first: metadata, then the name of
    the file. They only choose among the architectures that the shapes allow. A network for another
    number of channels than three is recognised too.
    """
    if len(shapes) > MAX_KEYS:
        return None
    views = list(iter_state_views(shapes))
    recoloured = (other for view in views for other in _iter_three_channel_views(view))
    for view in chain(views, recoloured):
        kept = create_signature_rows(view.shapes)
        for dropped in iter_classifier_keys(view.shapes):
            found = load_signature_index().find_entries(rows_to_signature(kept, dropped))
            if found:
                return _create_match(view, dropped, found, hints)
    return None


def _create_match(
    view: StateView,
    dropped: tuple[str, ...],
    found: Sequence[ArchitectureEntry],
    hints: Sequence[str],
) -> ArchitectureMatch:
    """The match, with the classes of its classifier or of one that is outside the prefix."""
    counts = _find_class_counts(view.shapes, dropped)
    heads = () if counts else _find_head_layers(view.other_shapes)
    counts = counts or _find_class_counts(
        view.other_shapes, find_layer_keys(view.other_shapes, heads)
    )
    beside = dict.fromkeys(key.partition(".")[0] for key in view.other_shapes)
    hinted, common = _find_hinted_name(found, hints), _find_common_entries(found)
    rare = () if hinted or not common else (e.name for e in found if e not in common)
    return ArchitectureMatch(
        hinted or next((entry.name for entry in common), None),
        tuple(entry.name for entry in found),
        next(iter(counts), None),
        view.prefix,
        heads,
        tuple(part for part in beside if part not in heads and part not in TRAINING_COUNTERS),
        tuple(rare),
    )


def iter_state_views(shapes: Shapes) -> Iterator[StateView]:
    """The state itself, then without the prefixes that many keys share, shortest prefix first."""
    level = [StateView("", shapes)]
    for _ in range(MAX_PREFIX_DEPTH + 1):
        yield from level
        level = [inner for view in level for inner in _iter_inner_views(view)]


def _iter_inner_views(view: StateView) -> Iterator[StateView]:
    """The view under each first component that is common enough, the most common first."""
    parts = Counter(key.partition(".")[0] for key in view.shapes if "." in key)
    for part, count in parts.most_common(MAX_PREFIXES):
        if count * MAX_PREFIXES >= len(view.shapes):
            start = f"{part}."
            inner = {key: view.shapes[key] for key in find_layer_keys(view.shapes, [part])}
            beside = {key: view.shapes[key] for key in view.shapes if key not in inner}
            bare = {key.removeprefix(start): shape for key, shape in inner.items()}
            yield StateView(view.prefix + start, bare, {**view.other_shapes, **beside})


def _iter_three_channel_views(view: StateView) -> Iterator[StateView]:
    """The view with three input channels in each stem that it may have with another number."""
    for stem in load_signature_index().stems:
        keys = [f"{layer}.weight" for layer in stem]
        own = [view.shapes.get(key, ()) for key in keys]
        if all(len(shape) == 4 and shape[1] != 3 for shape in own):
            three = {key: (shape[0], 3, *shape[2:]) for key, shape in zip(keys, own, strict=True)}
            yield replace(view, shapes={**view.shapes, **three})


def iter_classifier_keys(shapes: Shapes) -> Iterator[tuple[str, ...]]:
    """The keys of each classifier that this state may have: no keys first, then the fewest."""
    found = {find_layer_keys(shapes, layers) for layers in load_signature_index().classifier_layers}
    yield from sorted(found | {()}, key=lambda keys: (len(keys), keys))


def _find_head_layers(shapes: Shapes) -> tuple[str, ...]:
    """The layers here that are a classifier in some architecture."""
    layers = dict.fromkeys(
        layer for known in load_signature_index().classifier_layers for layer in known
    )
    return tuple(layer for layer in layers if find_layer_keys(shapes, [layer]))


def _find_class_counts(shapes: Shapes, keys: Sequence[str]) -> list[int]:
    """The numbers of rows of these linear or convolution layers, the last layer first."""
    weights = [shapes[key] for key in reversed(keys) if key.endswith(".weight")]
    return [shape[0] for shape in weights if len(shape) in (2, 4)]


def _find_hinted_name(entries: Sequence[ArchitectureEntry], hints: Iterable[str]) -> str | None:
    """The entry that a hint names, or None."""
    for hint in hints:
        named = [
            entry.name
            for entry in entries
            if _normalize_model_name(entry.name) in _normalize_separators(hint)
        ]
        if named:
            return max(named, key=lambda name: len(_normalize_model_name(name)))
    return None


def _find_common_entries(entries: Sequence[ArchitectureEntry]) -> list[ArchitectureEntry]:
    """The entries of the function that nearly everybody uses; empty where two are near.

    timm publishes more weights for what people use: 7 for resnet18, none for resnetblur18.
    """
    counts: Counter[int] = Counter()
    for entry in entries:
        counts[entry.behavior_id] += len(find_library(entry.name).list_tagged_names(entry.name))
    (behavior, most), *others = counts.most_common()
    rarest = max((count for _, count in others), default=0)
    is_common = not others or most >= MIN_PUBLISHED * max(rarest, 1)
    return [entry for entry in entries if is_common and entry.behavior_id == behavior]


def _normalize_model_name(name: str) -> str:
    return _normalize_separators(name.partition(":")[2] or name)


def _normalize_separators(text: str) -> str:
    """A name in the form in which names are compared: ViT-Tiny/patch16 -> vit_tiny_patch16."""
    return re.sub(r"[-./\\\s]", "_", text.casefold())
