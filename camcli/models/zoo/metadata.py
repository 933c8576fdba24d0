"""What a file of weights, or a file beside it, says of itself. Read as hostile; nothing is run.

Knows nothing of architectures: what is said is a hint, and shapes decide.
"""

from __future__ import annotations

import json
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
}  # bytes; YAML is slow to read
MIN_STD = 1e-3  # a deviation, as a share of white
MAX_NESTED_TABLES = 100  # tables inside one another
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
    """Names that may hold the architecture's, the surest first; classes; parts of a transform."""

    architecture_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] | None = None
    transform_settings: Mapping[str, Any] = field(default_factory=dict)


# What Python and yaml raise for values that are not what they are said to be.
MALFORMED_VALUE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


def read_metadata(path: Path, content: Any) -> CheckpointMetadata:
    """All that is said of a file of weights: by what it holds, and by what lies beside it."""
    said = _find_nested_tables(content)
    for name in SETTINGS_FILE_NAMES:
        said += _find_nested_tables(_read_settings_file(path.parent / name))
    return CheckpointMetadata(
        tuple(dict.fromkeys(name for table in said for name in _iter_architecture_names(table))),
        next((names for table in said if (names := _find_class_names(table))), None),
        {
            key: value
            for table in reversed(said)
            for key, value in find_transform_settings(table).items()
        },
    )


def _find_nested_tables(content: Any) -> list[Mapping[str, Any]]:
    """A table and the tables inside it that training scripts nest their settings in.

    Each once: a hostile one may hold itself, or the same ones over and over.
    """
    found: dict[int, Mapping[str, Any]] = {}
    waiting = [content]
    while waiting and len(found) < MAX_NESTED_TABLES:
        one = waiting.pop(0)
        table = one if isinstance(one, Mapping) else getattr(one, "__dict__", None)  # argparse's
        if isinstance(table, Mapping) and id(table) not in found:
            found[id(table)] = table
            waiting += [table.get(key) for key in NESTED_TABLE_KEYS]
    return list(found.values())


def _read_settings_file(path: Path) -> Any:
    """A file of settings, JSON or YAML; None where there is none that makes sense."""
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


def _find_class_names(table: Mapping[str, Any]) -> tuple[str, ...] | None:
    """A list of names, {index: name}, or {name: index}."""
    for key in (*CLASS_NAME_KEYS, "class_to_idx", "label2id"):
        value = table.get(key)
        with suppress(*MALFORMED_VALUE_ERRORS):
            found = _order_by_index(value) if isinstance(value, Mapping) else value
            if isinstance(found, Sequence) and not isinstance(found, str):
                names = tuple(found)
                if names and all(isinstance(name, str) for name in names):
                    return names
    return None


def _order_by_index(table: Mapping[Any, Any]) -> list[Any]:
    turned = {v: k for k, v in table.items()} if _has_only_integers(table.values()) else table
    by_index = {int(key): name for key, name in turned.items()}
    return [by_index[index] for index in range(len(by_index))]


def _has_only_integers(values: Any) -> bool:
    return all(isinstance(value, int) for value in values)


def find_transform_settings(table: Mapping[str, Any]) -> dict[str, Any]:
    """Those of mean, std, interpolation and crop_pct that make sense."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = table.get(key)
        if isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_fraction, value)):
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
    """Whether it is a number from 0 to 1, as of white or of a side."""
    return isinstance(value, int | float) and 0 <= value <= 1
