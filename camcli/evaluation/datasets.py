"""Which data set a folder or file is, recognised by its files, and the part that is asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from camcli.errors import TargetError, UsageError
from camcli.evaluation.readers.coco import coco
from camcli.evaluation.readers.cub import cub
from camcli.evaluation.readers.cub import names as cub_names
from camcli.evaluation.readers.tables import boxes_csv, tscam_list, wsol_metadata
from camcli.evaluation.readers.xml import xml
from camcli.evaluation.truth import Found, Problem, Truth, sound
from camcli.labels import Labels


@dataclass(frozen=True, slots=True)
class Place:
    """Where a data set is: its folder or file, and its parts where they are kept elsewhere."""

    root: Path
    images: Path | None = None
    annotations: Path | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was found: the kind by name, its classes' names if it numbers its own, the truths."""

    kind: str
    classes: tuple[str, ...]
    found: tuple[Found, ...]


def read(place: Place) -> Dataset:
    """Every image that a data set has truth for, and every Problem with it. Raises UsageError."""
    root = place.root
    if not root.exists():
        raise UsageError(f"{root}: no such data set")
    kind = next((kind for kind, sign in SIGNS.items() if sign(place)), None)
    if kind is None:
        raise UsageError(
            f"{root} is no data set that camcli knows. It looks for CUB's images.txt, "
            "wsolevaluation's image_ids.txt, boxes.csv, COCO's *.json, VOC's or ILSVRC's *.xml, "
            "or a TS-CAM list *.txt; name what is kept elsewhere with --annotations and --images"
        )
    return Dataset(
        kind,
        cub_names(root) if kind == "CUB_200_2011" else (),
        tuple(sound(READERS[kind](place))),
    )


def _wsol_folder(place: Place) -> Path:
    here = place.root / (place.split or "test")
    return place.root if (place.root / "image_ids.txt").is_file() else here


def _read_wsol(place: Place) -> Iterator[Found]:
    images = place.images or place.root
    return wsol_metadata(_wsol_folder(place), images, place.annotations or images)


def _read_csv(place: Place) -> Iterator[Found]:
    inside = place.root.is_dir()
    table = place.annotations or (place.root / "boxes.csv" if inside else place.root)
    return boxes_csv(table, place.images or (place.root if inside else table.parent), inside)


def _coco_file(place: Place) -> Path | None:
    """The one JSON file that the place has for its split."""
    if place.root.is_file():
        return place.root if place.root.suffix == ".json" else None
    if place.annotations and place.annotations.is_file():
        return place.annotations if place.annotations.suffix == ".json" else None
    folders = (place.annotations or place.root / "annotations", place.root)
    found = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    instances = [file for file in found if file.stem.startswith("instances")] or found
    chosen = [f for f in instances if place.split is None or f.stem.endswith(place.split)]
    if len(chosen) > 1:
        which = ", ".join(file.stem.removeprefix("instances_") for file in chosen)
        raise UsageError(f"{place.root} has several annotation files; choose by --split: {which}")
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
    return folder.is_dir() and next(folder.rglob("*.xml"), None) is not None


def _has_csv(place: Place) -> bool:
    table = place.annotations or place.root
    return table.suffix == ".csv" or (place.root / "boxes.csv").is_file()


SIGNS: Mapping[str, Callable[[Place], bool]] = {
    "CUB_200_2011": lambda place: (place.root / "images.txt").is_file(),
    "wsolevaluation metadata": lambda p: (_wsol_folder(p) / "image_ids.txt").is_file(),
    "boxes.csv": _has_csv,
    "TS-CAM list": lambda p: p.root.is_file() and p.root.suffix == ".txt",
    "COCO": lambda place: _coco_file(place) is not None,
    "VOC XML": _has_xml,
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
    """A truth and the model's class that it is of; `number` is its place in the data set."""

    number: int
    truth: Truth
    class_index: int


def bind(
    dataset: Dataset, labels: Labels, wanted: Iterable[str] = (), limit: int | None = None
) -> tuple[list[Item], list[Problem]]:
    """What can be asked of a model with these labels, and every Problem.

    `wanted` keeps the classes of those names or indices; `limit` the first N of a fixed shuffle.
    """
    problems = [item for item in dataset.found if isinstance(item, Problem)]
    keep = {labels.find(text) for text in wanted}
    own = len(dataset.classes) == len(labels.names)
    items = []
    for number, truth in enumerate(t for t in dataset.found if isinstance(t, Truth)):
        try:
            index = _index(truth.label, () if own else dataset.classes, labels)
        except TargetError as error:
            problems.append(Problem("class is unknown to the model", truth.image, str(error)))
            continue
        if not keep or index in keep:
            items.append(Item(number, truth, index))
    if limit is not None and limit < len(items):
        random.Random(0).shuffle(items)
        items = sorted(items[:limit], key=lambda item: item.number)
    return items, problems


def _index(label: int | str, classes: tuple[str, ...], labels: Labels) -> int:
    if isinstance(label, str):
        return labels.find(label)
    if classes and 0 <= label < len(classes):
        return labels.find(classes[label])
    if 0 <= label < len(labels.names):
        return label
    raise TargetError(f"no class {label} among the model's {len(labels.names)}")
