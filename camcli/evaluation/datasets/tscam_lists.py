"""TS-CAM's lists of ImageNet: one line per image. One list to evaluate, several to train."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem, Problem
from camcli.evaluation.datasets.reader import (
    DatasetPaths,
    DatasetReader,
    TrainingSplit,
    count_classes,
)
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.evaluation.datasets.text_files import load_nonempty_lines
from camcli.io.labels import create_default_labels

TRAIN_NAMES, VALIDATION_NAMES = ("train",), ("val", "valid", "validation", "test")
MAX_LINE_BYTES = 2**16  # an image has a few boxes


def read_tscam_list(table: Path, root: Path) -> Iterator[AnnotationOrProblem]:
    """Read TS-CAM's list: `wnid/name.JPEG label x1 y1 x2 y2 [x1 y1 x2 y2 ...]`."""
    for number, line in load_nonempty_lines(table):
        image, *rest = line.split()
        try:
            values = [float(value) for value in rest]
            label, corners = int(rest[0]), values[1:]
            if len(corners) % 4:
                raise ValueError("each box needs four numbers")
        except (ValueError, IndexError, OverflowError) as error:
            yield Problem("annotation cannot be read", f"{table.name}, line {number}", str(error))
            continue
        boxes = tuple(zip(*(corners[i::4] for i in range(4)), strict=True))
        yield Annotation(image, root / image, label, boxes)


def _is_list_file(paths: DatasetPaths) -> bool:
    table = paths.annotations or paths.root
    return table.is_file() and table.suffix == ".txt"


def _read_list_file(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    table = paths.annotations or paths.root
    return read_tscam_list(table, paths.images or _find_image_folder(table, paths.root))


def _find_image_folder(table: Path, root: Path) -> Path:
    """The folder that has the first listed image: DATASET, that of the list, or a split beside it.

    TS-CAM keeps the lists in a folder of their own, next to `train/` and `val/`.
    """
    home = root if root.is_dir() else table.parent
    _, line = next(iter(load_nonempty_lines(table)), (0, ""))
    splits = (*VALIDATION_NAMES, *TRAIN_NAMES)
    parents = (home, table.parent, table.parent.parent)
    folders = [f for parent in parents for f in (parent, *(parent / name for name in splits))]
    image = line.split()[0] if line else ""
    return next((folder for folder in folders if os.path.isfile(folder / image)), home)


def _has_lists(paths: DatasetPaths) -> bool:
    return paths.root.is_dir() and _find_list_file(paths.root, TRAIN_NAMES) is not None


def _has_boxed_list(paths: DatasetPaths) -> bool:
    table = _find_list_file(paths.root, _list_split_names(paths)) if paths.root.is_dir() else None
    return table is not None and _has_boxes(table)


def _list_split_names(paths: DatasetPaths) -> Sequence[str]:
    """The names of the split to evaluate: of validation, unless `--split train` asks for it."""
    return TRAIN_NAMES if paths.split in TRAIN_NAMES else VALIDATION_NAMES


def _find_list_file(root: Path, split_names: Sequence[str]) -> Path | None:
    """Find the list of a split: in the folder, or in a subfolder of lists as in TS-CAM.

    Of several, such as TS-CAM's val_folder.txt and val_folder_new.txt, it is the first with boxes.
    """
    folders = (f for f in sorted(root.iterdir()) if re.fullmatch(r"(.*_)?lists?", f.name))
    for folder in (root, *folders):
        files = [f for f in sorted(folder.glob("*.txt")) if f.stem.split("_")[0] in split_names]
        if files:
            return next((f for f in files if _has_boxes(f)), files[0])
    return None


def _has_boxes(table: Path) -> bool:
    """Whether the first line of a list has an image, a label, and a box or several."""
    with table.open("rb") as file:
        cells = file.readline(MAX_LINE_BYTES).split()
    return len(cells) >= 6 and len(cells) % 4 == 2 and cells[1].isdigit()


def _read_training_split(paths: DatasetPaths) -> TrainingSplit:
    train, validation = (_read_split(paths, names) for names in (TRAIN_NAMES, VALIDATION_NAMES))
    labels = create_default_labels(count_classes(paths.root, train))
    return TrainingSplit(labels, train, validation)


def _read_boxed_list(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    yield from _read_split(paths, _list_split_names(paths))


def _read_split(paths: DatasetPaths, split_names: Sequence[str]) -> list[AnnotationOrProblem]:
    table = _find_list_file(paths.root, split_names)
    root = paths.images or paths.root
    folder = next((root / name for name in split_names if (root / name).is_dir()), root)
    return list(read_tscam_list(table, folder)) if table else []


register_reader(
    DatasetReader(
        name="TS-CAM list",
        recognized_by="a TS-CAM list *.txt",
        priority=40,
        detect=_is_list_file,
        read_annotations=_read_list_file,
    )
)
register_reader(
    DatasetReader(
        name="ImageNet_ILSVRC2012",
        recognized_by="val*.txt, such as TS-CAM's ILSVRC2012_list/val_folder_new.txt",
        priority=42,
        detect=_has_boxed_list,
        read_annotations=_read_boxed_list,
    )
)
register_reader(
    DatasetReader(
        name="lists",
        recognized_by="train*.txt, a list of images and labels",
        priority=45,
        detect=_has_lists,
        read_training_split=_read_training_split,
    )
)
