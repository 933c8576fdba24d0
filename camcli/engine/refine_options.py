"""Read `--refine`: how a map is smoothed by the structure of its own image."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from camcli.core.errors import UsageError
from camcli.core.types import RefineKind

REFINE_KINDS: tuple[str, ...] = get_args(RefineKind)
SOURCES = ("auto", "features", "attention")


@dataclass(frozen=True, slots=True)
class RefineOptions:
    """The value of `--refine`.

    `source` is what tells the affinity; "auto" is attention on plain transformers, else features.
    `layer` is the layer whose features are compared; without it camcli chooses one. `power` is the
    exponent of the similarity, and `sinkhorn` the number of steps that make the affinity doubly
    stochastic (0: rows sum to 1; None: 3 for attention, else 0). `radius` and `epsilon` are those
    of the guided filter.
    """

    kind: str = "none"
    source: str = "auto"
    layer: str = ""
    power: float = 2.0
    sinkhorn: int | None = None
    radius: int = 16
    epsilon: float = 0.01


NO_REFINEMENT = RefineOptions()
OPTION_READERS: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
    "none": {},
    "affinity": {
        "source": lambda text: _read_choice(text, SOURCES),
        "layer": lambda text: text.strip(),
        "power": lambda text: _read_number(text, 0.01, 100),
        "sinkhorn": lambda text: int(_read_number(text, 0, 1000, r"\d+")),
    },
    "guided": {
        "radius": lambda text: int(_read_number(text, 1, 1000, r"\d+")),
        "epsilon": lambda text: _read_number(text, 1e-8, 1e8),
    },
}
EXAMPLES = "none, affinity, affinity:layer=stage4,power=2, affinity:source=attention or guided"


def parse_refine_options(spec: str) -> RefineOptions:
    """Read the value of `--refine`: KIND or KIND:KEY=VALUE,KEY=VALUE. Raises UsageError."""
    kind, _, rest = spec.strip().partition(":")
    if kind not in REFINE_KINDS:
        raise UsageError(f"--refine {spec[:60]}: write {EXAMPLES}")
    texts = dict(_split_pair(spec, part) for part in rest.split(",") if part.strip())
    readers = OPTION_READERS[kind]
    for key, text in texts.items():
        if key not in readers:
            has = ", ".join(readers) or "none"
            raise UsageError(f"--refine {spec[:60]}: {kind} has no option {key} (options: {has})")
        if not text.strip():
            raise UsageError(f"--refine {spec[:60]}: {key} has no value")
    try:
        values = {key: readers[key](text) for key, text in texts.items()}
    except ValueError as error:
        raise UsageError(f"--refine {spec[:60]}: {error}") from None
    return _complete(replace(NO_REFINEMENT, kind=kind, **values), spec, values)


def _split_pair(spec: str, text: str) -> tuple[str, str]:
    key, equals, value = text.strip().partition("=")
    if not equals:
        raise UsageError(f"--refine {spec[:60]}: write KEY=VALUE after the colon, not {text!r}")
    return key, value


def _complete(found: RefineOptions, spec: str, given: Mapping[str, Any]) -> RefineOptions:
    """A layer or a power are those of features; attention has neither."""
    has_own = "layer" in given or "power" in given
    if found.source == "attention" and has_own:
        raise UsageError(
            f"--refine {spec[:60]}: attention is averaged over all blocks as it is; omit layer and "
            "power"
        )
    return replace(found, source="features") if has_own else found


def _read_choice(text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
    return text


def _read_number(
    text: str, low: float, high: float, pattern: str = r"\d*\.?\d+(?:e-?\d+)?"
) -> float:
    value = float(text) if re.fullmatch(pattern, text) else -1.0
    if not low <= value <= high:
        raise ValueError(f"{text!r} is no number from {low:g} to {high:g}")
    return value
