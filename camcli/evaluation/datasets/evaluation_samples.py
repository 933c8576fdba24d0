"""Samples to evaluate: each annotation with the class index that it has in a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial

from camcli.core.errors import TargetError
from camcli.evaluation.datasets.annotations import Annotation, Problem, hash_image_name
from camcli.evaluation.datasets.reader_registry import Dataset
from camcli.io.labels import Labels


@dataclass(frozen=True, slots=True)
class EvaluationSample:
    """An annotation with its class index in the model; `index` is its place among the samples."""

    index: int
    annotation: Annotation
    class_index: int


def create_evaluation_samples(
    dataset: Dataset,
    labels: Labels,
    class_filter: Iterable[str] = (),
    limit: int | None = None,
    unknown_class: int | None = None,
) -> tuple[list[EvaluationSample], list[Problem]]:
    """The samples of a data set for a model with these labels, and every problem.

    `class_filter` keeps the classes of these names or indices. `limit` keeps N images of a fixed
    shuffle. A class that the labels do not have gets the index `unknown_class`; without it, it is
    a problem.
    """
    keep = {labels.find_class(text) for text in class_filter}
    find_index = cache(partial(_find_class_index, dataset, labels))
    problems = [entry for entry in dataset.entries if isinstance(entry, Problem)]
    chosen: list[tuple[Annotation, int]] = []
    for annotation in dataset.entries:
        if isinstance(annotation, Problem):
            continue
        index = find_index(annotation.label)
        if isinstance(index, str) and unknown_class is None:
            problems.append(Problem("class is unknown to the model", annotation.image_name, index))
            continue
        known = unknown_class if isinstance(index, str) else index
        if known is not None and (not keep or known in keep):
            chosen.append((annotation, known))
    names = sorted(
        {annotation.image_name for annotation, _ in chosen},
        key=lambda name: (hash_image_name(name), name),
    )
    kept = set(names[:limit])
    picked = [pair for pair in chosen if pair[0].image_name in kept]
    return [EvaluationSample(n, *pair) for n, pair in enumerate(picked)], problems


def _find_class_index(dataset: Dataset, labels: Labels, label: int | str) -> int | str:
    """The model's class index of a label, or the reason why there is none."""
    own = dataset.class_names is None or len(dataset.class_names) == len(labels.names)
    if isinstance(label, int) and own:
        known = 0 <= label < len(labels.names)
        return label if known else f"no class {label} among the model's {len(labels.names)}"
    names = dataset.class_names or {}
    if isinstance(label, int) and label not in names:
        return f"class index {label} has no name in the data set"
    try:
        return labels.find_class(names[label] if isinstance(label, int) else label)
    except TargetError as error:
        return str(error)
