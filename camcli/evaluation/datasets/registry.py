"""Which data set a folder or file is, recognised by its files, and the part that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from camcli.core.errors import TargetError, UsageError
from camcli.evaluation.datasets.annotations import (
    Annotation,
    AnnotationOrProblem,
    Problem,
    hash_image_name,
    iter_valid_annotations,
)
from camcli.evaluation.datasets.coco import read_coco
from camcli.evaluation.datasets.cub import load_cub_class_names as cub_names
from camcli.evaluation.datasets.cub import read_cub
from camcli.evaluation.datasets.tables import read_boxes_csv, read_tscam_list, read_wsol_metadata
from camcli.evaluation.datasets.voc import read_voc
from camcli.io.labels import Labels


@dataclass(frozen=True, slots=True)
class DatasetPaths:
    """Where a data set is: its folder or file, and its parts where they are kept elsewhere.

    What lies below `skip`, where results go, is not part of it. With `sized` images need not be
    there where their sizes are known: maps that exist already can be scored without them.
    """

    root: Path
    images: Path | None = None
    annotations: Path | None = None
    split: str | None = None
    skip_folder: Path = Path(os.devnull)
    allow_missing_images: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was found. A data set that numbers classes of its own has their names in `classes`."""

    kind: str
    entries: tuple[AnnotationOrProblem, ...]
    class_names: Mapping[int, str] | None = None


def read_dataset(paths: DatasetPaths) -> Dataset:
    """Every image that a data set has truth for, and every Problem with it. Raises UsageError."""
    root = paths.root
    if not os.path.exists(root):
        raise UsageError(f"{root}: no such data set")
    kind = next((kind for kind, sign in FORMAT_DETECTORS.items() if sign(paths)), None)
    if kind is None:
        raise UsageError(
            f"{root} is no data set that camcli knows. It looks for CUB's images.txt, "
            "wsolevaluation's image_ids.txt, boxes.csv, COCO's *.json, VOC's or ILSVRC's *.xml, "
            "or a TS-CAM list *.txt; name what is kept elsewhere with --annotations and --images"
        )
    classes = cub_names(root) if kind == "CUB_200_2011" else None
    return Dataset(
        kind,
        tuple(
            iter_valid_annotations(
                FORMAT_READERS[kind](paths), allow_missing_images=paths.allow_missing_images
            )
        ),
        classes,
    )


def _find_wsol_folder(place: DatasetPaths) -> Path:
    here = place.root / (place.split or "test")
    return place.root if os.path.isfile(place.root / "image_ids.txt") else here


def _read_wsol_dataset(place: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    images = place.images or place.root
    return read_wsol_metadata(_find_wsol_folder(place), images, place.annotations or images)


def _read_csv_dataset(place: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    inside = place.root.is_dir()
    table = place.annotations or (place.root / "boxes.csv" if inside else place.root)
    images = place.images or (place.root if inside else table.parent)
    return read_boxes_csv(table, images, place.skip_folder if inside else None)


def _find_coco_file(place: DatasetPaths) -> Path | None:
    """The one JSON file that the place has for its split."""
    given = place.annotations or place.root
    if given.is_file():
        return given if given.suffix == ".json" else None
    folders = (place.annotations, place.root / "annotations", place.root)
    found = [f for folder in folders if folder for f in sorted(folder.glob("*.json"))]
    instances = [file for file in found if file.stem.startswith("instances")] or found
    chosen = [f for f in instances if place.split is None or f.stem.endswith(place.split)]
    if instances and len(chosen) != 1:
        which = ", ".join(file.stem.removeprefix("instances_") for file in instances)
        raise UsageError(f"{place.root} has annotations of {which}: choose one by --split")
    return chosen[0] if chosen else None


def _read_coco_dataset(place: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    file = _find_coco_file(place) or place.root
    split = file.stem.removeprefix("instances_")
    home = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = (home / split, home / "images" / split, home / "images")
    return read_coco(file, place.images or next((f for f in folders if f.is_dir()), home))


def _read_voc_dataset(place: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    return read_voc(place.annotations or place.root, place.images or place.root, place.split)


def _has_voc_xml(place: DatasetPaths) -> bool:
    folder = place.annotations or place.root
    if not folder.is_dir() or any((folder / "annotations").glob("instances*.json")):
        return False
    return next(folder.rglob("*.xml"), None) is not None


def _has_boxes_csv(place: DatasetPaths) -> bool:
    table = place.annotations or place.root
    return table.suffix == ".csv" or os.path.isfile(place.root / "boxes.csv")


FORMAT_DETECTORS: Mapping[str, Callable[[DatasetPaths], bool]] = {
    "CUB_200_2011": lambda place: os.path.isfile(place.root / "images.txt"),
    "wsolevaluation metadata": lambda p: os.path.isfile(_find_wsol_folder(p) / "image_ids.txt"),
    "boxes.csv": _has_boxes_csv,
    "TS-CAM list": lambda p: p.root.is_file() and p.root.suffix == ".txt",
    "VOC XML": _has_voc_xml,
    "COCO": lambda place: _find_coco_file(place) is not None,
}
FORMAT_READERS: Mapping[str, Callable[[DatasetPaths], Iterator[AnnotationOrProblem]]] = {
    "CUB_200_2011": lambda p: read_cub(p.root, p.images or p.root / "images", p.split or "test"),
    "wsolevaluation metadata": _read_wsol_dataset,
    "boxes.csv": _read_csv_dataset,
    "TS-CAM list": lambda p: read_tscam_list(p.root, p.images or p.root.parent),
    "COCO": _read_coco_dataset,
    "VOC XML": _read_voc_dataset,
}


@dataclass(frozen=True, slots=True)
class EvaluationSample:
    """A truth and the model's class that it is of; `number` is its place among those asked for."""

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
    """What can be asked of a model with these labels, and every Problem.

    `wanted` keeps the classes of those names or indices; `limit` N images of a fixed shuffle;
    `unknown` stands for a class that the labels do not have, which is else a Problem.
    """
    keep = {labels.find_class(text) for text in class_filter}
    index_of = cache(
        partial(_find_class_index, dataset, labels)
    )  # what is unknown is looked for only once
    problems = [item for item in dataset.entries if isinstance(item, Problem)]
    chosen: list[tuple[Annotation, int]] = []
    for truth in dataset.entries:
        if isinstance(truth, Problem):
            continue
        index = index_of(truth.label)
        if isinstance(index, str) and unknown_class is None:
            problems.append(Problem("class is unknown to the model", truth.image_name, index))
            continue
        known = unknown_class if isinstance(index, str) else index
        if known is not None and (not keep or known in keep):
            chosen.append((truth, known))
    names = sorted(
        {truth.image_name for truth, _ in chosen}, key=lambda image: (hash_image_name(image), image)
    )
    kept = set(names[:limit])
    picked = [pair for pair in chosen if pair[0].image_name in kept]
    return [EvaluationSample(n, *pair) for n, pair in enumerate(picked)], problems


def _find_class_index(dataset: Dataset, labels: Labels, label: int | str) -> int | str:
    """The model's class of a label, or why there is none."""
    own = dataset.class_names is None or len(dataset.class_names) == len(labels.names)
    if isinstance(label, int) and own:
        known = 0 <= label < len(labels.names)
        return label if known else f"no class {label} among the model's {len(labels.names)}"
    names = dataset.class_names or {}
    if isinstance(label, int) and label not in names:
        return f"class {label + 1} has no name in classes.txt"
    try:
        return labels.find_class(names[label] if isinstance(label, int) else label)
    except TargetError as error:
        return str(error)
