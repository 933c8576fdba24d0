"""The metadata of a file of weights: in the file itself or in a settings file next to it.

The input is untrusted, and no code from it runs. An architecture name is only a hint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from camcli.io.transforms import RESAMPLING_FILTERS

MAX_BYTES_BY_SUFFIX = {
    ".json": 4 * 2**20,
    ".yaml": 2**16,
    ".yml": 2**16,
}  # YAML is slow to read
PLACEHOLDER = re.compile(r"LABEL_\d+")  # transformers' name of a class without a name
MIN_STD = 1e-3  # as a fraction of white
MAX_NESTED_TABLES = 100  # per file
SETTINGS_FILE_NAMES = ("config.json", "args.yaml", "args.yml")
ARCHITECTURE_KEYS = ("architecture", "arch", "model", "model_name", "_name", "backbone")
CLASS_NAME_KEYS = (
    "label_names",
    "class_names",
    "classes",
    "CLASSES",
    "idx_to_class",
    "id2label",
    "names",
)
NESTED_TABLE_KEYS = (
    "args",
    "hyper_parameters",
    "pretrained_cfg",
    "meta",
    "dataset_meta",
    "config",
    "cfg",
)


@dataclass(frozen=True, slots=True)
class CheckpointMetadata:
    """Possible names of the architecture, the most reliable first; classes; transform."""

    architecture_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    transform_settings: Mapping[str, Any] = field(default_factory=dict)


# What Python and yaml raise for values of a wrong type or range.
MALFORMED_VALUE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


def read_metadata(path: Path, content: Any) -> CheckpointMetadata:
    """The metadata in the content of a file and in the settings files of its folder."""
    tables = _find_nested_tables(content)
    for name in SETTINGS_FILE_NAMES:
        tables += _find_nested_tables(read_settings_file(path.parent / name))
    return CheckpointMetadata(
        tuple(dict.fromkeys(name for table in tables for name in _iter_architecture_names(table))),
        next((names for table in tables if (names := find_class_names(table))), None),
        {
            key: value
            for table in reversed(tables)
            for key, value in find_transform_settings(table).items()
        },
    )


def _find_nested_tables(content: Any) -> list[Mapping[str, Any]]:
    """A table, and the tables inside it in which training scripts keep settings.

    Each appears once: a hostile table may contain itself.
    """
    found: dict[int, Mapping[str, Any]] = {}
    waiting = [content]
    while waiting and len(found) < MAX_NESTED_TABLES:
        one = waiting.pop(0)
        table = (
            one if isinstance(one, Mapping) else getattr(one, "__dict__", None)
        )  # argparse.Namespace
        if isinstance(table, Mapping) and id(table) not in found:
            found[id(table)] = table
            waiting += [table.get(key) for key in NESTED_TABLE_KEYS]
    return list(found.values())


def read_settings_file(path: Path) -> Any:
    """The content of a JSON or YAML file; None if it is missing, too large or malformed."""
    with suppress(OSError, RecursionError, yaml.YAMLError, *MALFORMED_VALUE_ERRORS):
        if path.is_file() and path.stat().st_size <= MAX_BYTES_BY_SUFFIX[path.suffix]:
            text = path.read_text(encoding="utf-8")
            return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    return None


def _iter_architecture_names(table: Mapping[str, Any]) -> Iterator[str]:
    for key in ARCHITECTURE_KEYS:
        value = table.get(key)
        if isinstance(value, str) and 0 < len(value) < 200:
            yield value


def find_class_names(table: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Class names from a list of names, {index: name}, or {name: index}; no placeholders."""
    for key in (*CLASS_NAME_KEYS, "class_to_idx", "label2id"):
        value = table.get(key)
        with suppress(*MALFORMED_VALUE_ERRORS):
            found = _order_by_index(value) if isinstance(value, Mapping) else value
            if isinstance(found, Sequence) and not isinstance(found, str):
                names = tuple(found)
                if names and all(isinstance(name, str) for name in names):
                    return None if all(map(PLACEHOLDER.fullmatch, names)) else names
    return None


def _order_by_index(table: Mapping[Any, Any]) -> list[Any]:
    turned = {v: k for k, v in table.items()} if _has_only_integers(table.values()) else table
    by_index = {int(key): name for key, name in turned.items()}
    return [by_index[index] for index in range(len(by_index))]


def _has_only_integers(values: Any) -> bool:
    return all(isinstance(value, int) for value in values)


def find_transform_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """The valid values among mean, std, interpolation and crop_pct."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = table.get(key)
        if isinstance(value, list | tuple) and value and all(map(_is_fraction, value)):
            found[key] = tuple(float(v) for v in value)
    if min(found.get("std", (1,))) < MIN_STD:
        del found["std"]
    interpolation, crop = table.get("interpolation"), table.get("crop_pct")
    if isinstance(interpolation, str) and interpolation in RESAMPLING_FILTERS:
        found["interpolation"] = interpolation
    if _is_fraction(crop) and crop:
        found["crop_pct"] = float(crop)
    return found


def _is_fraction(value: Any) -> bool:
    """Whether the value is a number from 0 to 1."""
    return isinstance(value, int | float) and 0 <= value <= 1
