"""The registry of data set readers, and a reader that exists in this test alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SAMPLES, Cli

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem
from camcli.evaluation.datasets.reader import DatasetPaths, DatasetReader, TrainingSplit
from camcli.evaluation.datasets.reader_registry import (
    list_readers,
    read_dataset,
    register_reader,
    unregister_reader,
)
from camcli.io.labels import create_labels
from camcli.training.data.splits import load_training_data

CLASS_NAMES = {0: "espresso", 1: "Egyptian cat"}


def read_table(paths: DatasetPaths, split: str) -> Iterator[AnnotationOrProblem]:
    """Lines of boxes.tsv: split, image, class index, x1, y1, x2, y2."""
    for line in (paths.root / "boxes.tsv").read_text().splitlines():
        own, image, label, *corners = line.split("\t")
        if own == split:
            x1, y1, x2, y2 = map(float, corners)
            yield Annotation(image, paths.root / image, int(label), ((x1, y1, x2, y2),))


TSV = DatasetReader(
    name="TSV",
    recognized_by="boxes.tsv",
    priority=5,
    detect=lambda paths: (paths.root / "boxes.tsv").is_file(),
    read_annotations=lambda paths: read_table(paths, paths.split or "test"),
    load_class_names=lambda _paths: CLASS_NAMES,
    read_training_split=lambda paths: TrainingSplit(
        create_labels(list(CLASS_NAMES.values())),
        list(read_table(paths, "train")),
        list(read_table(paths, "test")),
    ),
)


@pytest.fixture
def tsv_reader() -> Iterator[DatasetReader]:
    yield register_reader(TSV)
    unregister_reader(TSV.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    rows = []
    for split in ("train", "test"):
        for label, name in enumerate(("coffee", "chelsea")):
            image = f"{name}-{split}.jpg"
            shutil.copy(SAMPLES / f"{name}.jpg", root / image)
            rows.append(f"{split}\t{image}\t{label}\t60\t10\t420\t300")
    (root / "boxes.tsv").write_text("\n".join(rows))
    return root


@pytest.mark.usefixtures("tsv_reader")
def test_evaluate_uses_a_registered_reader(cli: Cli, folder: Path) -> None:
    ran = cli("evaluate", "localization", folder, "--resamples", "0", "--method", "gradcam")
    assert ran.status == 0, ran.err
    assert ran.lines[0]["images"] == 2
    assert ran.lines[0]["metrics"]["cls_1"]["value"] == 1  # so the class names were found


@pytest.mark.usefixtures("tsv_reader")
def test_training_uses_the_same_reader(folder: Path) -> None:
    data = load_training_data(DatasetPaths(folder))
    assert data.kind == "TSV"
    assert data.labels.names == tuple(CLASS_NAMES.values())
    assert [(s.name, s.label) for s in data.train] == [
        ("coffee-train.jpg", 0),
        ("chelsea-train.jpg", 1),
    ]
    assert [s.name for s in data.validation] == ["coffee-test.jpg", "chelsea-test.jpg"]
    assert [s.annotation.boxes for s in data.localization_samples] == [((60, 10, 420, 300),)] * 2


def test_messages_list_the_registered_formats(tmp_path: Path, tsv_reader: DatasetReader) -> None:
    with pytest.raises(UsageError) as error:
        read_dataset(DatasetPaths(tmp_path))
    for reader in list_readers():
        assert (reader.recognized_by in str(error.value)) == bool(reader.read_annotations)
    (tmp_path / "cat").mkdir()
    with pytest.raises(
        UsageError, match=f"--images works only with {tsv_reader.name} and CUB_200_2011"
    ):
        load_training_data(DatasetPaths(tmp_path, images=tmp_path))


def test_an_unregistered_reader_is_gone(folder: Path) -> None:
    register_reader(TSV)
    with pytest.raises(ValueError, match="TSV"):
        register_reader(TSV)
    unregister_reader(TSV.name)
    with pytest.raises(UsageError, match=r"boxes\.csv"):
        read_dataset(DatasetPaths(folder))


def test_readers_are_asked_by_priority(tsv_reader: DatasetReader, folder: Path) -> None:
    (folder / "boxes.csv").write_text("image,class,x1,y1,x2,y2\ncoffee-test.jpg,cup,1,2,3,4\n")
    priorities = [reader.priority for reader in list_readers()]
    assert priorities == sorted(set(priorities))
    assert list_readers()[0] is tsv_reader
    assert read_dataset(DatasetPaths(folder)).kind == "TSV"


def test_a_folder_by_class_may_have_a_file_named_as_a_table_of_cub(tmp_path: Path) -> None:
    for name in ("coffee", "chelsea"):
        for part in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(SAMPLES / f"{name}.jpg", tmp_path / name / f"{part}.jpg")
    (tmp_path / "coffee").rename(tmp_path / "002.black_coffee")  # a folder as CUB names it
    (tmp_path / "images.txt").write_text("coffee/a.jpg\n")
    data = load_training_data(DatasetPaths(tmp_path))
    assert data.kind == "folder by class"
    assert data.labels.names == ("black coffee", "chelsea")
