"""The data set reader: one record of functions per format, for `evaluate` and `train`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem
from camcli.io.labels import Labels


@dataclass(frozen=True, slots=True)
class DatasetPaths:
    """Where a data set is: its folder or file, and its parts if they are in other places.

    Readers ignore everything below `skip_folder`, which is the folder for results.
    """

    root: Path
    images: Path | None = None
    annotations: Path | None = None
    split: str | None = None
    skip_folder: Path = Path(os.devnull)


@dataclass(frozen=True, slots=True)
class TrainingSplit:
    """The images of a data set to train and to validate with, and the names of its classes.

    The label of each annotation is an index into `labels`. Annotations may have no boxes.
    """

    labels: Labels
    train: Sequence[AnnotationOrProblem]
    validation: Sequence[AnnotationOrProblem]


@dataclass(frozen=True, slots=True)
class DatasetReader:
    """One format of data sets.

    `detect` recognizes the format by its files; `recognized_by` names these files for the user.
    `evaluate` calls `read_annotations`, and `load_class_names` if the data set numbers classes of
    its own (indices from 0). `train` calls `read_training_split`. A function that the format does
    not support is None.

    camcli asks the readers in the order of `priority`, smallest first, and takes the first that
    detects its format. A format with files of its own gets a small number, a format that accepts
    any file with a common suffix a large one. The readers of camcli use 10, 20, 30, ...
    """

    name: str
    recognized_by: str
    priority: int
    detect: Callable[[DatasetPaths], bool]
    read_annotations: Callable[[DatasetPaths], Iterator[AnnotationOrProblem]] | None = None
    load_class_names: Callable[[DatasetPaths], Mapping[int, str]] | None = None
    read_training_split: Callable[[DatasetPaths], TrainingSplit] | None = None


def count_classes(root: Path, entries: Sequence[AnnotationOrProblem]) -> int:
    """Count the classes of integer labels. Raises UsageError if they skip an index from 0 on."""
    labels = {int(entry.label) for entry in entries if isinstance(entry, Annotation)}
    if labels != set(range(len(labels))):
        missing = next(n for n in range(len(labels) + 1) if n not in labels)
        raise UsageError(
            f"{root}: the {len(labels)} labels go from {min(labels)} to {max(labels)} without "
            f"{missing}; number classes from 0 (CUB: from 1) without gaps"
        )
    return len(labels)
