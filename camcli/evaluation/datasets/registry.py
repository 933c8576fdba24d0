"""Which data set a folder or file is, recognised by its files, and the part that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from camcli.core.errors import TargetError, UsageError
from camcli.evaluation.datasets.annotations import Found, Problem, Truth, code, sound
from camcli.evaluation.datasets.coco import coco
from camcli.evaluation.datasets.cub import cub
from camcli.evaluation.datasets.cub import names as cub_names
from camcli.evaluation.datasets.tables import boxes_csv, tscam_list, wsol_metadata
from camcli.evaluation.datasets.voc import xml
from camcli.io.labels import Labels


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set is: its folder or file, and its parts where they are kept elsewhere.

    What lies below `skip`, where results go, is not part of it. With `sized` images need not be
    there where their sizes are known: maps that exist already can be scored without them.
    """

    root: Path
    images: Path | None = None
    annotations: Path | None = None
    split: str | None = None
    skip: Path = Path(os.devnull)
    sized: bool = False


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was found. A data set that numbers classes of its own has their names in `classes`."""

    kind: str
    found: tuple[Found, ...]
    classes: Mapping[int, str] | None = None


def read(place: Place) -> Dataset:
    """Every image that a data set has truth for, and every Problem with it. Raises UsageError."""
    root = place.root
    if not os.path.exists(root):
        raise UsageError(f"{root}: no such data set")
    kind = next((kind for kind, sign in SIGNS.items() if sign(place)), None)
    if kind is None:
        raise UsageError(
            f"{root} is no data set that camcli knows. It looks for CUB's images.txt, "
            "wsolevaluation's image_ids.txt, boxes.csv, COCO's *.json, VOC's or ILSVRC's *.xml, "
            "or a TS-CAM list *.txt; name what is kept elsewhere with --annotations and --images"
        )
    classes = cub_names(root) if kind == "CUB_200_2011" else None
    return Dataset(kind, tuple(sound(READERS[kind](place), sized=place.sized)), classes)


def _wsol_folder(place: Place) -> Path:
    here = place.root / (place.split or "test")
    return place.root if os.path.isfile(place.root / "image_ids.txt") else here


def _read_wsol(place: Place) -> Iterator[Found]:
    images = place.images or place.root
    return wsol_metadata(_wsol_folder(place), images, place.annotations or images)


def _read_csv(place: Place) -> Iterator[Found]:
    inside = place.root.is_dir()
    table = place.annotations or (place.root / "boxes.csv" if inside else place.root)
    images = place.images or (place.root if inside else table.parent)
    return boxes_csv(table, images, place.skip if inside else None)


def _coco_file(place: Place) -> Path | None:
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


def _read_coco(place: Place) -> Iterator[Found]:
    file = _coco_file(place) or place.root
    split = file.stem.removeprefix("instances_")
    home = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = (home / split, home / "images" / split, home / "images")
    return coco(file, place.images or next((f for f in folders if f.is_dir()), home))


def _read_xml(place: Place) -> Iterator[Found]:
    return xml(place.annotations or place.root, place.images or place.root, place.split)


def _has_xml(place: Place) -> bool:
    folder = place.annotations or place.root
    if not folder.is_dir() or any((folder / "annotations").glob("instances*.json")):
        return False
    return next(folder.rglob("*.xml"), None) is not None


def _has_csv(place: Place) -> bool:
    table = place.annotations or place.root
    return table.suffix == ".csv" or os.path.isfile(place.root / "boxes.csv")


SIGNS: Mapping[str, Callable[[Place], bool]] = {
    "CUB_200_2011": lambda place: os.path.isfile(place.root / "images.txt"),
    "wsolevaluation metadata": lambda p: os.path.isfile(_wsol_folder(p) / "image_ids.txt"),
    "boxes.csv": _has_csv,
    "TS-CAM list": lambda p: p.root.is_file() and p.root.suffix == ".txt",
    "VOC XML": _has_xml,
    "COCO": lambda place: _coco_file(place) is not None,
}
READERS: Mapping[str, Callable[[Place], Iterator[Found]]] = {
    "CUB_200_2011": lambda p: cub(p.root, p.images or p.root / "images", p.split or "test"),
    "wsolevaluation metadata": _read_wsol,
    "boxes.csv": _read_csv,
    "TS-CAM list": lambda p: tscam_list(p.root, p.images or p.root.parent),
    "COCO": _read_coco,
    "VOC XML": _read_xml,
}


@dataclass(frozen=True, slots=True)
class Item:
    """A truth and the model's class that it is of; `number` is its place among those asked for."""

    number: int
    truth: Truth
    class_index: int


def bind(
    dataset: Dataset,
    labels: Labels,
    wanted: Iterable[str] = (),
    limit: int | None = None,
    unknown: int | None = None,
) -> tuple[list[Item], list[Problem]]:
    """What can be asked of a model with these labels, and every Problem.

    `wanted` keeps the classes of those names or indices; `limit` N images of a fixed shuffle;
    `unknown` stands for a class that the labels do not have, which is else a Problem.
    """
    keep = {labels.find(text) for text in wanted}
    index_of = cache(partial(_index, dataset, labels))  # what is unknown is looked for only once
    problems = [item for item in dataset.found if isinstance(item, Problem)]
    chosen: list[tuple[Truth, int]] = []
    for truth in dataset.found:
        if isinstance(truth, Problem):
            continue
        index = index_of(truth.label)
        if isinstance(index, str) and unknown is None:
            problems.append(Problem("class is unknown to the model", truth.image, index))
            continue
        known = unknown if isinstance(index, str) else index
        if known is not None and (not keep or known in keep):
            chosen.append((truth, known))
    names = sorted({truth.image for truth, _ in chosen}, key=lambda image: (code(image), image))
    kept = set(names[:limit])
    picked = [pair for pair in chosen if pair[0].image in kept]
    return [Item(n, *pair) for n, pair in enumerate(picked)], problems


def _index(dataset: Dataset, labels: Labels, label: int | str) -> int | str:
    """The model's class of a label, or why there is none."""
    own = dataset.classes is None or len(dataset.classes) == len(labels.names)
    if isinstance(label, int) and own:
        known = 0 <= label < len(labels.names)
        return label if known else f"no class {label} among the model's {len(labels.names)}"
    names = dataset.classes or {}
    if isinstance(label, int) and label not in names:
        return f"class {label + 1} has no name in classes.txt"
    try:
        return labels.find(names[label] if isinstance(label, int) else label)
    except TargetError as error:
        return str(error)
