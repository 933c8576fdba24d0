"""Register data set readers, and read a data set with the reader of its format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

import camcli.evaluation.datasets as package
from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import AnnotationOrProblem, iter_valid_annotations
from camcli.evaluation.datasets.reader import DatasetPaths, DatasetReader

_READERS: dict[str, DatasetReader] = {}


def register_reader(reader: DatasetReader) -> DatasetReader:
    """Add a reader under its name. Raises ValueError if the name is taken."""
    if reader.name in _READERS:
        raise ValueError(f"there is already a data set reader named {reader.name!r}")
    _READERS[reader.name] = reader
    return reader


def unregister_reader(name: str) -> None:
    """Remove a reader. Raises KeyError if no reader has the name."""
    del _READERS[name]


def list_readers() -> list[DatasetReader]:
    """All readers in the order in which camcli asks them: by priority, then by name."""
    _import_readers()
    return sorted(_READERS.values(), key=lambda reader: (reader.priority, reader.name))


@cache
def _import_readers() -> None:
    """Import every module of this folder: each format registers its reader when imported."""
    for module in iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)


@dataclass(frozen=True, slots=True)
class Dataset:
    """The entries of a data set; `class_names` are its own names by index, if it numbers classes.

    `kind` is the name of its format.
    """

    kind: str
    entries: tuple[AnnotationOrProblem, ...]
    class_names: Mapping[int, str] | None = None


def read_dataset(paths: DatasetPaths, *, allow_missing_images: bool = False) -> Dataset:
    """Read all annotations of a data set, and list all problems. Raises UsageError.

    With `allow_missing_images` an annotation that has the image's size needs no image file.
    """
    if not os.path.exists(paths.root):
        raise UsageError(f"{paths.root}: no such data set")
    readers = [reader for reader in list_readers() if reader.read_annotations]
    reader = next((reader for reader in readers if reader.detect(paths)), None)
    if reader is None or reader.read_annotations is None:
        raise UsageError(_unknown_format_message(paths, readers))
    found = iter_valid_annotations(
        reader.read_annotations(paths), allow_missing_images=allow_missing_images
    )
    names = reader.load_class_names(paths) if reader.load_class_names else None
    return Dataset(reader.name, tuple(found), names)


def _unknown_format_message(paths: DatasetPaths, readers: list[DatasetReader]) -> str:
    *most, last = (reader.recognized_by for reader in readers)
    return (
        f"{paths.root}: camcli knows no data set of this format. It looks for {', '.join(most)} or "
        f"{last}. If annotations or images are in another place, give --annotations and --images"
    )
