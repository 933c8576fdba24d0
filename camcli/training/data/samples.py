"""Photographs to train on and to validate with, and their classes: data only."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.core.errors import to_one_line
from camcli.evaluation.datasets.samples import EvaluationSample
from camcli.io.labels import Labels


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A photograph by its name; `label` is its class, or None where a teacher is to say it."""

    name: str
    path: Path
    label: int | None


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a data set holds. `truths` are those of the validation photographs that have boxes."""

    kind: str
    labels: Labels
    train: tuple[TrainingSample, ...]
    validation: tuple[TrainingSample, ...]
    localization_samples: tuple[EvaluationSample, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """What tells whether photographs, classes and parts are the same as in another run."""
        parts = [[(p.name, p.label) for p in part] for part in (self.train, self.validation)]
        boxes = [
            (item.annotation.image_name, item.class_index, item.annotation.boxes)
            for item in self.localization_samples
        ]
        told = repr((self.labels.names, parts, boxes))
        return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()

    def unreadable_classes_message(self, classes: Collection[int | None]) -> str:
        """What to say of classes none of whose photographs can be read."""
        names = [self.labels.names[n] for n in classes if n is not None]
        return f"none of the photographs of {format_few_names(names)} can be read"


def format_few_names(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return ", ".join(map(to_one_line, names[:3])) + more
