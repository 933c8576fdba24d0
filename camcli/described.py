"""What a file of weights, or a file beside it, says of itself. Read as hostile; nothing is run.

Knows nothing of architectures: what is said is a hint, and shapes decide.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import yaml

from camcli.images import RESAMPLING

LARGEST = 4 * 2**20  # bytes of a file of settings; 22,000 class names are less
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


def described(path: Path, content: Any) -> Described:
    """All that is said of a file of weights: in it, in its header, and in what lies beside it."""
    said = [*_tables(content), *_tables(_header(path))]
    for name in BESIDE:
        said += _tables(_read(path.parent / name))
    return Described(
        tuple(dict.fromkeys(name for table in said for name in _names(table))),
        next((names for table in said if (names := _classes(table))), None),
        {key: value for table in reversed(said) for key, value in _transform(table).items()},
    )


def _tables(content: Any) -> list[Mapping[str, Any]]:
    """A table and the tables inside it that training scripts nest their settings in."""
    if hasattr(content, "__dict__"):  # argparse's
        content = vars(content)
    if not isinstance(content, Mapping):
        return []
    inner = [content.get(key) for key in INSIDE]
    return [content, *(table for one in inner if one is not content for table in _tables(one))]


def _header(path: Path) -> Mapping[str, Any]:
    """The metadata of a safetensors file; its values are text, and may be JSON."""
    if path.suffix.lower() != ".safetensors":
        return {}
    with suppress(OSError, safetensors.SafetensorError):
        with safetensors.safe_open(path, "pt") as opened:
            found = opened.metadata() or {}
        return {key: _parsed(text) for key, text in found.items()}
    return {}


def _parsed(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text) if text[:1] in "[{" else text
    return text


def _read(path: Path) -> Any:
    """A file of settings, JSON or YAML; None where there is none that makes sense."""
    with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        if path.is_file() and path.stat().st_size <= LARGEST:
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
        with suppress(ValueError, TypeError, KeyError):
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


def _transform(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of mean, std, interpolation and crop_pct that make sense."""
    found: dict[str, Any] = {}
    for key in ("mean", "std"):
        value = table.get(key)
        if isinstance(value, list | tuple) and len(value) == 3 and all(map(_finite, value)):
            found[key] = tuple(float(v) for v in value)
    if min(found.get("std", (1,))) <= 0:
        del found["std"]
    if table.get("interpolation") in RESAMPLING:
        found["interpolation"] = table["interpolation"]
    crop: Any = table.get("crop_pct")
    if _finite(crop) and 0 < crop <= 1:
        found["crop_pct"] = float(crop)
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
