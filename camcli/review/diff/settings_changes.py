"""Which settings two runs do not share, as their run.json files tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from camcli.core.errors import to_one_line
from camcli.review.stored_run import StoredRun

# Parts of run.json that results may depend on; times, counts and arguments differ always.
COMPARED_KEYS = (
    *("versions", "device", "model", "methods", "settings"),
    *("batch_size", "compiled", "precision", "batch_norms_folded"),
)
IGNORED_NAMES = ("settings.save", "settings.image_format", "settings.colormap", "settings.alpha")
MAX_VALUE_CHARACTERS = 60


def list_settings_changes(base: StoredRun, new: StoredRun) -> tuple[str, ...]:
    """One text for each setting that differs: `model.transform.interpolation: bicubic, bilinear`.

    Empty if one run has no run.json.
    """
    if not base.settings or not new.settings:
        return ()
    try:
        return tuple(_iter_changes(base, new))
    except RecursionError:  # lists in lists, which no run of camcli has
        return ()


def _iter_changes(base: StoredRun, new: StoredRun) -> Iterator[str]:
    before, after = dict(_flatten(base.settings)), dict(_flatten(new.settings))
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name) and not name.startswith(IGNORED_NAMES):
            values = f"{_format(before.get(name))}, {_format(after.get(name))}"
            yield f"{to_one_line(name)[:100]}: {values}"


def _flatten(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The values of run.json by dotted name, in order."""
    waiting = [(key, settings[key]) for key in reversed(COMPARED_KEYS) if key in settings]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [(f"{name}.{key}", value[key]) for key in reversed(value)]
        else:
            yield name, value


def _format(value: Any) -> str:
    text = to_one_line(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[: MAX_VALUE_CHARACTERS - 1]}…"
