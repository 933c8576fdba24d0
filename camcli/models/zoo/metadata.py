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

from camcli.io.transforms import RESAMPLING

LARGEST = {".json": 4 * 2**20, ".yaml": 2**16, ".yml": 2**16}  # bytes; YAML is slow to read
LEAST = 1e-3  # a deviation, as a share of white
MOST = 100  # tables inside one another
BESIDE = ("config.json", "args.yaml", "args.yml")
ARCHITECTURES = ("architecture", "arch", "model", "model_name", "_name", "backbone")
CLASSES = ("label_names", "class_names", "classes", "CLASSES", "idx_to_class", "id2label", "names")
INSIDE = ("args", "hyper_parameters", "pretrained_cfg", "meta", "dataset_meta", "config", "cfg")


@dataclass(frozen=True, slots=True)
class Described:
    """Names that may hold the architecture's, the surest first; classes; parts of a transform."""

    names: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    transform: Mapping[str, Any] = field(default_factory=dict)


# What Python and yaml raise for values that are not what they are said to be.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, OverflowError)


def described(path: Path, content: Any) -> Described:
    """All that is said of a file of weights: by what it holds, and by what lies beside it."""
    said = _tables(content)
    for name in BESIDE:
        said += _tables(_read(path.parent / name))
    return Described(
        tuple(dict.fromkeys(name for table in said for name in _names(table))),
        next((names for table in said if (names := _classes(table))), None),
        {key: value for table in reversed(said) for key, value in transform_of(table).items()},
    )


def _tables(content: Any) -> list[Mapping[str, Any]]:
    """A table and the tables inside it that training scripts nest their settings in.

    Each once: a hostile one may hold itself, or the same ones over and over.
    """
    found: dict[int, Mapping[str, Any]] = {}
    waiting = [content]
    while waiting and len(found) < MOST:
        one = waiting.pop(0)
        table = one if isinstance(one, Mapping) else getattr(one, "__dict__", None)  # argparse's
        if isinstance(table, Mapping) and id(table) not in found:
            found[id(table)] = table
            waiting += [table.get(key) for key in INSIDE]
    return list(found.values())


def _read(path: Path) -> Any:
    """A file of settings, JSON or YAML; None where there is none that makes sense."""
    with suppress(OSError, RecursionError, yaml.YAMLError, *MALFORMED):
        if path.is_file() and path.stat().st_size <= LARGEST[path.suffix]:
            text = path.read_text(encoding="utf-8")
            return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    return None


def _names(table: Mapping[str, Any]) -> Iterator[str]:
    for key in ARCHITECTURES:
        value = table.get(key)
        if isinstance(value, str) and 0 < len(value) < 200:
            yield value


def _classes(table: Mapping[str, Any]) -> tuple[str, ...] | None:
    """A list of names, {index: name}, or {name: index}."""
    for key in (*CLASSES, "class_to_idx", "label2id"):
        value = table.get(key)
        with suppress(*MALFORMED):
            found = _in_order(value) if isinstance(value, Mapping) else value
            if isinstance(found, Sequence) and not isinstance(found, str):
                names = tuple(found)
                if names and all(isinstance(name, str) for name in names):
                    return names
    return None


def _in_order(table: Mapping[Any, Any]) -> list[Any]:
    turned = {v: k for k, v in table.items()} if _counts(table.values()) else table
    by_index = {int(key): name for key, name in turned.items()}
    return [by_index[index] for index in range(len(by_index))]


def _counts(values: Any) -> bool:
    return all(isinstance(value, int) for value in values)


def transform_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """Those of mean, std, interpolation and crop_pct that make sense."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = table.get(key)
        if isinstance(value, list | tuple) and len(value) == 3 and all(map(_share, value)):
            found[key] = tuple(float(v) for v in value)
    if min(found.get("std", (1,))) < LEAST:
        del found["std"]
    interpolation, crop = table.get("interpolation"), table.get("crop_pct")
    if isinstance(interpolation, str) and interpolation in RESAMPLING:
        found["interpolation"] = interpolation
    if _share(crop) and crop:
        found["crop_pct"] = float(crop)
    return found


def _share(value: Any) -> bool:
    """Whether it is a number from 0 to 1, as of white or of a side."""
    return isinstance(value, int | float) and 0 <= value <= 1
