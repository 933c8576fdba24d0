"""Records of training data: samples, their classes, and their split."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from camcli.core.errors import to_one_line
from camcli.evaluation.datasets.evaluation_samples import EvaluationSample
from camcli.io.labels import Labels


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """An image with its name; `label` is its class index, or None if a teacher labels it."""

    name: str
    path: Path
    label: int | None


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The samples of a data set; `localization_samples` are the validation images with boxes.

    `left_out` says in words what is not used, and why.
    """

    kind: str
    labels: Labels
    train: tuple[TrainingSample, ...]
    validation: tuple[TrainingSample, ...]
    localization_samples: tuple[EvaluationSample, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash of classes, splits and boxes, equal for two runs with the same data."""
        parts = [[(p.name, p.label) for p in part] for part in (self.train, self.validation)]
        boxes = [
            (item.annotation.image_name, item.class_index, item.annotation.boxes)
            for item in self.localization_samples
        ]
        content = repr((self.labels.names, parts, boxes))
        return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()

    def unreadable_classes_message(self, classes: Collection[int | None]) -> str:
        """The error message for classes without any readable image."""
        names = [self.labels.names[n] for n in classes if n is not None]
        return f"camcli cannot read any photographs of {format_few_names(names)}"


def format_few_names(names: Sequence[str]) -> str:
    """The first three names, and the number of the others."""
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return ", ".join(map(to_one_line, names[:3])) + more
