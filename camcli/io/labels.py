"""Class names and their indices."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from camcli.core.errors import LabelsError, TargetError, format_suggestion
from camcli.io.imagenet_names import load_imagenet_names


@dataclass(frozen=True, slots=True)
class Labels:
    """The name of each class, and the indices of every accepted spelling."""

    names: tuple[str, ...]
    spellings: MappingProxyType[str, tuple[int, ...]]

    def find_class(self, text: str) -> int:
        """The index of the class with this name, WordNet id or index.

        The name of a folder of CUB, such as `001.Laysan_Albatross`, is the class after the number.
        Raises TargetError if no class fits or more than one.
        """
        spelling = _normalize_spelling(text)
        without_number = _normalize_spelling(folder_to_class_name(text))
        indices = self.spellings.get(spelling) or self.spellings.get(without_number, ())
        if len(indices) == 1:
            return indices[0]
        if indices:
            which = " or ".join(map(str, indices))
            raise TargetError(f"{text!r} is the name of several classes; use the index: {which}")
        if re.fullmatch(r"\s*\d{1,9}\s*", text) and int(text) < len(self.names):
            return int(text)
        if re.fullmatch(r"\s*-?\d{1,9}\s*", text):
            last = len(self.names) - 1
            raise TargetError(f"the model has no class {text.strip()}; its indices are 0..{last}")
        near = format_suggestion(without_number, self.spellings)
        raise TargetError(f"the model has no class {text!r} among its {len(self.names)}{near}")


def create_labels(names: Sequence[str], others: Sequence[Sequence[str]] = ()) -> Labels:
    """Labels from one name per class and, optionally, other spellings of each."""
    spellings: defaultdict[str, list[int]] = defaultdict(list)
    unnumbered: set[str] = set()
    for index, name in enumerate(names):
        for spelling in {
            _normalize_spelling(s) for s in (name, *(others[index] if others else ()))
        }:
            spellings[spelling].append(index)
    for index, name in enumerate(names):  # a network may have been trained on names with numbers
        short = _normalize_spelling(folder_to_class_name(name))
        if short not in spellings or short in unnumbered:
            unnumbered.add(short)
            spellings[short].append(index)
    frozen = MappingProxyType({s: tuple(indices) for s, indices in spellings.items()})
    return Labels(tuple(names), frozen)


def folder_to_class_name(folder_name: str) -> str:
    """The class that a folder is named after: `001.Laysan_Albatross` is Laysan Albatross.

    CUB puts the number of the class and a dot before its name. `1.5` has no name, and stays.
    """
    return re.sub(r"^\d+\.(?=[^\W\d])", "", folder_name).replace("_", " ")


def create_folder_labels(folder_names: Sequence[str]) -> Labels:
    """Labels from one folder per class; folders that would get equal names keep their own."""
    names = [folder_to_class_name(name) for name in folder_names]
    count = Counter(map(_normalize_spelling, names))
    return create_labels(
        [
            name if count[_normalize_spelling(name)] == 1 else folder
            for name, folder in zip(names, folder_names, strict=True)
        ]
    )


def _normalize_spelling(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())


def create_default_labels(class_count: int) -> Labels:
    """ImageNet's names, synonyms and WordNet ids for its numbers of classes; else `class N`."""
    found = load_imagenet_names(class_count)
    if found is None:
        return create_labels([f"class {i}" for i in range(class_count)])
    others = [(*names.split(", "), names, wordnet_id) for wordnet_id, names in found]
    return create_labels([names[0] for names in others], others)


def load_labels(path: Path, class_count: int | None) -> Labels:
    """Names from a file: one per line, a JSON list, or JSON {index: name} or {index: [id, name]}.

    Raises LabelsError if the file cannot be read or does not have `class_count` names.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise LabelsError(f"--labels {path}: {reason}") from None
    names = (
        _parse_label_json(path, text)
        if text.lstrip()[:1] in ("{", "[")
        else _parse_label_lines(text)
    )
    if class_count is not None and len(names) != class_count:
        raise LabelsError(
            f"--labels {path} has {len(names)} names, but the model has {class_count} classes"
        )
    return create_labels([n[-1] for n in names], names)


def _parse_label_lines(text: str) -> list[list[str]]:
    return [[line.strip()] for line in text.rstrip().splitlines()]


def _parse_label_json(path: Path, text: str) -> list[list[str]]:
    try:
        parsed = json.loads(text)
        if isinstance(parsed, dict):
            parsed = [parsed[str(i)] for i in range(len(parsed))]
        return [_parse_label_entry(entry) for entry in parsed]
    except (ValueError, KeyError, TypeError, RecursionError):
        wanted = "a list of names, or {index: name} with indices from 0 without gaps"
        raise LabelsError(f"--labels {path}: the file is not JSON with {wanted}") from None


def _parse_label_entry(entry: Any) -> list[str]:
    names = [entry] if isinstance(entry, str) else entry
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError
    return names
