"""Each data set in its own form, made small: what is read, what is named as wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as MplPath
from PIL import Image

from camcli.core.errors import UsageError
from camcli.core.run_length import decode_runs
from camcli.evaluation.datasets.annotations import Annotation, Problem
from camcli.evaluation.datasets.coco import _polygons_to_mask
from camcli.evaluation.datasets.evaluation_samples import create_evaluation_samples
from camcli.evaluation.datasets.exif import transpose_annotation
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import Dataset, read_dataset
from camcli.io import images, labels
from camcli.training.data.splits import load_training_data

NAMES = labels.create_labels(["cat", "dog", "tench"], [["n1"], ["n2"], ["n3"]])


def photo(path: Path, size: tuple[int, int] = (40, 30)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path)
    return path.name


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def truths(dataset: Dataset) -> list[tuple[Any, ...]]:
    return [(t.image_name, t.label, t.boxes) for t in dataset.entries if isinstance(t, Annotation)]


def kinds(dataset: Dataset) -> list[str]:
    return sorted(p.kind for p in dataset.entries if isinstance(p, Problem))


def test_boxes_csv(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        photo(tmp_path / name)
    text(
        tmp_path / "boxes.csv",
        "image,class_index,width,height,x1,y1,x2,y2",
        "a.jpg,0,40,30,1,2,11,12",
        "a.jpg,0,40,30,20,2,31,12",
        "b.jpg,1,40,30,9,2,3,12",
        "gone.jpg,1,40,30,1,2,11,12",
        "a.jpg,0,40,30,one,2,11,12",
        "a.jpg,0",
    )
    found = read_dataset(DatasetPaths(tmp_path))
    assert found.kind == "boxes.csv"
    assert truths(found) == [("a.jpg", 0, ((1, 2, 11, 12), (20, 2, 31, 12)))]
    assert kinds(found) == [
        "annotation cannot be read",
        "annotation cannot be read",
        "box is inverted or empty",
        "image has no annotation",
        "image is missing",
    ]
    assert truths(read_dataset(DatasetPaths(tmp_path / "boxes.csv"))) == truths(found)


def cub(root: Path) -> Path:
    photo(root / "images/001.Cat/a.jpg")
    photo(root / "images/002.Dog/b.jpg")
    photo(root / "images/002.Dog/c.jpg")
    text(root / "images.txt", "1 001.Cat/a.jpg", "2 002.Dog/b.jpg", "3 002.Dog/c.jpg")
    text(root / "image_class_labels.txt", "1 1", "2 2", "3 2")
    text(root / "train_test_split.txt", "1 0", "2 1", "3 0")
    text(root / "bounding_boxes.txt", "1 1.9 2.0 10.0 20.0", "2 0.0 0.0 5.0 5.0")
    text(root / "classes.txt", "1 001.cat", "2 002.dog")
    return root


def test_cub_as_distributed(tmp_path: Path) -> None:
    found = read_dataset(DatasetPaths(cub(tmp_path)))
    assert found.kind == "CUB_200_2011"
    assert truths(found) == [("001.Cat/a.jpg", 0, ((1, 2, 11, 22),))]
    assert kinds(found) == ["image has no annotation"]
    train = read_dataset(DatasetPaths(tmp_path, split="train"))
    assert truths(train) == [("002.Dog/b.jpg", 1, ((0, 0, 5, 5),))]
    with pytest.raises(UsageError, match="test and train"):
        read_dataset(DatasetPaths(tmp_path, split="val"))


def test_cubs_classes_are_found_by_name_in_a_model_of_other_classes(tmp_path: Path) -> None:
    items, problems = create_evaluation_samples(
        read_dataset(DatasetPaths(cub(tmp_path), split="train")), NAMES
    )
    assert [item.class_index for item in items] == [1]
    own = labels.create_labels(["x", "y"])
    assert [
        i.class_index
        for i in create_evaluation_samples(
            read_dataset(DatasetPaths(tmp_path, split="train")), own
        )[0]
    ] == [1]
    assert not problems


@pytest.mark.parametrize("name", ["bounding_boxes.txt", "train_test_split.txt"])
def test_a_missing_piece_is_named(tmp_path: Path, name: str) -> None:
    (cub(tmp_path) / name).unlink()
    with pytest.raises(UsageError, match=name):
        read_dataset(DatasetPaths(tmp_path))


def test_a_tscam_list(tmp_path: Path) -> None:
    photo(tmp_path / "val/n1/a.JPEG")
    photo(tmp_path / "val/n2/b.JPEG")
    listed = text(
        tmp_path / "val_list.txt",
        "n1/a.JPEG 0 1 2 11 12 20 2 31 12",
        "n2/b.JPEG 1",
        "n2/b.JPEG 1 2 3",
        "n2/b.JPEG dog 1 2 3 4",
    )
    found = read_dataset(DatasetPaths(listed, images=tmp_path / "val"))
    assert found.kind == "TS-CAM list"
    assert truths(found) == [("n1/a.JPEG", 0, ((1, 2, 11, 12), (20, 2, 31, 12)))]
    assert kinds(found) == ["annotation cannot be read"] * 2 + ["image has no annotation"]


def imagenet(root: Path) -> Path:
    """The folder of TS-CAM's README, with one photograph for training and two for validation."""
    for image in ("train/n1/t.JPEG", "val/n1/a.JPEG", "val/n2/b.JPEG"):
        photo(root / image)
    text(root / "ILSVRC2012_list/train.txt", "n1/t.JPEG 0")
    text(root / "ILSVRC2012_list/val_folder.txt", "n1/a.JPEG 0", "n2/b.JPEG 1")
    boxed = ("n1/a.JPEG 0 1 2 11 12 20 2 31 12", "n2/b.JPEG 1 3 4 13 14")
    text(root / "ILSVRC2012_list/val_folder_new.txt", *boxed)
    return root


def test_imagenet_in_tscams_layout_is_evaluated_by_its_folder(tmp_path: Path) -> None:
    root = imagenet(tmp_path / "ImageNet_ILSVRC2012")
    listed, val = root / "ILSVRC2012_list/val_folder_new.txt", root / "val"
    right = [
        ("n1/a.JPEG", 0, ((1, 2, 11, 12), (20, 2, 31, 12))),
        ("n2/b.JPEG", 1, ((3, 4, 13, 14),)),
    ]
    for paths in (
        DatasetPaths(root),
        DatasetPaths(root, annotations=listed, images=val),  # as the message on formats advises
        DatasetPaths(root, annotations=listed),
        DatasetPaths(val, annotations=listed),
        DatasetPaths(listed, images=val),
        DatasetPaths(listed),
    ):
        assert truths(read_dataset(paths)) == right, paths
        assert kinds(read_dataset(paths)) == []
    assert read_dataset(DatasetPaths(root)).kind == "ImageNet_ILSVRC2012"
    with pytest.raises(UsageError, match=r"val_folder_new\.txt"):
        read_dataset(DatasetPaths(root, split="train"))  # its list has no boxes


def test_training_measures_boxes_on_tscams_list_that_has_them(tmp_path: Path) -> None:
    root = imagenet(tmp_path)
    photo(root / "train/n2/u.JPEG")
    text(root / "ILSVRC2012_list/train.txt", "n1/t.JPEG 0", "n2/u.JPEG 1")
    found = load_training_data(DatasetPaths(root))
    boxes = [sample.annotation.boxes for sample in found.localization_samples]
    assert boxes == [((1, 2, 11, 12), (20, 2, 31, 12)), ((3, 4, 13, 14),)]


def wsol(root: Path, *localization: str) -> Path:
    for name in ("a.jpg", "b.jpg"):
        photo(root / "photos" / name)
    text(root / "test/image_ids.txt", "a.jpg", "b.jpg")
    text(root / "test/class_labels.txt", "a.jpg,0", "b.jpg,2")
    text(root / "test/image_sizes.txt", "a.jpg,400,300", "b.jpg,40,30")
    text(root / "test/localization.txt", *localization)
    return root


def test_wsolevaluations_metadata_with_boxes(tmp_path: Path) -> None:
    root = wsol(tmp_path, "a.jpg,10,20,110,120", "a.jpg,1,2,3,4", "b.jpg,x,1,2,3")
    found = read_dataset(DatasetPaths(root, images=root / "photos"))
    assert found.kind == "wsolevaluation metadata"
    assert truths(found) == [("a.jpg", 0, ((10, 20, 110, 120), (1, 2, 3, 4)))]
    assert next(t for t in found.entries if isinstance(t, Annotation)).size == (400, 300)
    assert kinds(found) == ["annotation cannot be read", "image has no annotation"]


def test_wsolevaluations_metadata_with_masks(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 10:20] = 255
    for name, values in (("m1", mask), ("m2", mask[::-1]), ("i1", 255 - mask)):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(path)
    root = wsol(tmp_path, "a.jpg,m1.png,i1.png", "a.jpg,m2.png,", "b.jpg,gone.png,")
    found = read_dataset(DatasetPaths(root, images=root / "photos", annotations=root / "masks"))
    a, b = (t for t in found.entries if isinstance(t, Annotation))
    assert [m().sum() for m in a.masks] == [100, 100]
    assert [m().sum() for m in a.ignored_masks] == [1100]
    with pytest.raises(Exception, match="No such file"):
        b.masks[0]()


def voc(path: Path, *objects: tuple[str, int, int, int, int], size: str = "") -> Path:
    things = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin>"
        f"<xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    )
    return text(path, f"<annotation>{size}{things}</annotation>")


def bomb() -> str:
    """Entities of entities: a gigabyte, if they were ever written out."""
    entities = ['<!ENTITY b0 "ha">']
    entities += [f'<!ENTITY b{i} "{f"&b{i - 1};" * 10}">' for i in range(1, 10)]
    thing = "<object><name>&b9;</name></object>"
    return f"<!DOCTYPE a [{''.join(entities)}]><annotation>{thing}</annotation>"


def test_voc_and_ilsvrc_xml(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        photo(tmp_path / f"JPEGImages/{name}.jpg")
    notes = tmp_path / "Annotations"
    size = "<size><width>80</width><height>60</height></size>"
    voc(notes / "a.xml", ("cat", 1, 2, 11, 12), ("dog", 3, 4, 9, 9), ("cat", 20, 2, 31, 12))
    voc(notes / "b.xml", ("n3", 1, 2, 11, 12), size=size)
    text(notes / "c.xml", "<annotation><object>")
    voc(notes / "d.xml")
    text(notes / "bomb.xml", bomb())
    found = read_dataset(DatasetPaths(tmp_path))
    assert found.kind == "VOC XML"
    assert truths(found) == [
        ("JPEGImages/a.jpg", "cat", ((1, 2, 11, 12), (20, 2, 31, 12))),
        ("JPEGImages/a.jpg", "dog", ((3, 4, 9, 9),)),
        ("JPEGImages/b.jpg", "n3", ((1, 2, 11, 12),)),
    ]
    assert kinds(found) == ["annotation cannot be read"] * 2 + ["image has no annotation"] * 2
    items, _ = create_evaluation_samples(found, NAMES)
    assert [(i.annotation.image_path.name, i.class_index) for i in items] == [
        ("a.jpg", 0),
        ("a.jpg", 1),
        ("b.jpg", 2),
    ]
    text(tmp_path / "ImageSets/Main/val.txt", "b")
    assert [t[0] for t in truths(read_dataset(DatasetPaths(tmp_path, split="val")))] == [
        "JPEGImages/b.jpg"
    ]
    with pytest.raises(UsageError, match="ImageSets/Main/test"):
        read_dataset(DatasetPaths(tmp_path, split="test"))


def document() -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 2, "file_name": "b.jpg", "width": 40, "height": 30},
            {"id": 3, "file_name": "c.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "unicorn"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 7,
                "bbox": [10, 5, 10, 10],
                "segmentation": [[10, 5, 20, 5, 20, 15, 10, 15]],
            },
            {
                "id": 2,
                "image_id": 1,
                "category_id": 7,
                "iscrowd": 1,
                "bbox": [0, 0, 40, 1],
                "segmentation": {"size": [30, 40], "counts": [0, 30, 1170]},
            },
            {"id": 3, "image_id": 2, "category_id": 9, "bbox": [0, 0, 5, 5]},
            {"id": 4, "image_id": 2, "category_id": 7, "bbox": [0, 0, 5]},
            {"id": 5, "image_id": 99, "category_id": 7, "bbox": [0, 0, 5, 5]},
            {
                "id": 6,
                "image_id": 2,
                "category_id": 7,
                "bbox": [0, 0, 5, 5],
                "segmentation": {"size": [30, 40], "counts": [10, 30]},
            },
        ],
    }


def test_coco(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        photo(tmp_path / "val2017" / name)
    text(tmp_path / "annotations/instances_val2017.json", json.dumps(document()))
    found = read_dataset(DatasetPaths(tmp_path))
    assert found.kind == "COCO"
    assert truths(found) == [
        ("a.jpg", "cat", ((10, 5, 20, 15),)),
        ("b.jpg", "unicorn", ((0, 0, 5, 5),)),
    ]
    first = next(t for t in found.entries if isinstance(t, Annotation))
    assert first.masks[0]().sum() == 100
    crowd = first.ignored_masks[0]()
    assert crowd.shape == (30, 40)
    assert crowd[:, 0].all()
    assert crowd.sum() == 30
    assert kinds(found) == ["annotation cannot be read"] * 3 + ["image has no annotation"]
    items, problems = create_evaluation_samples(found, NAMES)
    assert len(items) == 1
    assert [p.kind for p in problems].count("class is unknown to the model") == 1
    assert any("unicorn" in p.detail for p in problems)


def letters(runs: list[int]) -> str:
    """COCO's encoder, as its documentation has it."""
    out = []
    for i, run in enumerate(runs):
        value, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            out.append(chr((bits | 32 if more else bits) + 48))
    return "".join(out)


def test_cocos_letters_stand_for_runs() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        runs = rng.integers(0, 5000, 30).tolist()
        assert decode_runs(letters(runs)) == runs


def test_several_annotation_files_are_chosen_from_by_split(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        text(tmp_path / f"annotations/instances_{split}.json", json.dumps(document()))
        photo(tmp_path / split / "a.jpg")
    with pytest.raises(UsageError, match="train2017, val2017: choose one with --split"):
        read_dataset(DatasetPaths(tmp_path))
    assert truths(read_dataset(DatasetPaths(tmp_path, split="val2017")))


@pytest.mark.parametrize(
    "content", ["{}", "[", '{"images": 3, "categories": [], "annotations": 1}']
)
def test_json_that_is_not_cocos_says_so(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="not COCO's JSON"):
        read_dataset(DatasetPaths(text(tmp_path / "a.json", content)))


def test_a_folder_that_is_no_data_set_is_told_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"boxes\.csv"):
        read_dataset(DatasetPaths(tmp_path))
    with pytest.raises(UsageError, match="no such data set"):
        read_dataset(DatasetPaths(tmp_path / "none"))


def test_limit_is_a_fixed_shuffle_and_classes_are_kept_by_name(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{i % 3},1,2,11,12" for i in range(30)]
    for i in range(30):
        photo(tmp_path / f"{i}.jpg")
    text(tmp_path / "boxes.csv", "image,class_index,x1,y1,x2,y2", *rows)
    found = read_dataset(DatasetPaths(tmp_path))
    few, more = (
        [i.annotation.image_name for i in create_evaluation_samples(found, NAMES, limit=n)[0]]
        for n in (5, 10)
    )
    assert len(few) == 5
    assert set(few) < set(more)
    assert more != [f"{i}.jpg" for i in range(10)]
    dogs, _ = create_evaluation_samples(found, NAMES, ["dog"])
    assert {item.class_index for item in dogs} == {1}
    with pytest.raises(Exception, match="no class 'cow'"):
        create_evaluation_samples(found, NAMES, ["cow"])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_masks_of_stored_pixels_turn_with_the_image(
    tmp_path: Path, orientation: int
) -> None:
    stored = np.zeros((30, 50, 3), np.uint8)
    stored[4:9, 10:30] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(stored).save(path, exif=exif)
    upright_pixels = np.asarray(images.load_image(path).convert("L")) > 0
    mask = stored[..., 0] > 0
    given = Annotation("a", path, 0, ((10, 4, 30, 9),), None, (lambda: mask,))
    size = (upright_pixels.shape[1], upright_pixels.shape[0])
    turned = transpose_annotation(given, images.load_exif_transpose(path), size)
    ((x1, y1, x2, y2),) = turned.boxes
    expected = np.zeros_like(upright_pixels)
    expected[int(y1) : int(y2), int(x1) : int(x2)] = True
    assert (expected == upright_pixels).all()
    assert (turned.masks[0]() == upright_pixels).all()


def test_annotations_of_the_upright_size_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 30)).save(path, exif=exif)
    given = Annotation("a", path, 0, ((1, 2, 3, 4),), (30, 50))
    assert transpose_annotation(given, images.load_exif_transpose(path), (30, 50)) == given


def test_cubs_classes_go_by_their_numbers_and_names_may_have_spaces(tmp_path: Path) -> None:
    root = cub(tmp_path)
    text(root / "classes.txt", "3 003.tench", "1 001.cat", "2 002.d og")
    photo(root / "images/b c.jpg")
    text(root / "images.txt", "1 001.Cat/a.jpg", "2 002.Dog/b.jpg", "3 b c.jpg")
    text(root / "image_class_labels.txt", "1 1", "2 2", "3 3")
    text(root / "bounding_boxes.txt", "1 1 2 10 20", "2 0 0 5 5", "3 1 1 9 9")
    found = read_dataset(DatasetPaths(root))
    assert [name for name, *_ in truths(found)] == ["001.Cat/a.jpg", "b c.jpg"]
    other = labels.create_labels(["tench", "dog", "cat", "perch"])
    items, _ = create_evaluation_samples(found, other)
    assert [(i.annotation.image_name, i.class_index) for i in items] == [
        ("001.Cat/a.jpg", 2),
        ("b c.jpg", 0),
    ]
    (root / "classes.txt").unlink()
    items, problems = create_evaluation_samples(read_dataset(DatasetPaths(root)), other)
    assert not items
    assert {p.kind for p in problems} == {"class is unknown to the model"}


def test_xml_goes_with_the_image_of_its_own_folder(tmp_path: Path) -> None:
    for folder, box in (("A", (1, 2, 3, 4)), ("B", (5, 6, 7, 8))):
        photo(tmp_path / folder / "1.jpg")
        voc(tmp_path / folder / "1.xml", ("cat", *box))
    found = read_dataset(DatasetPaths(tmp_path))
    pairs = {t.image_path.parent.name: t.boxes for t in found.entries if isinstance(t, Annotation)}
    assert pairs == {"A": ((1, 2, 3, 4),), "B": ((5, 6, 7, 8),)}
    voc(tmp_path / "C/1.xml", ("cat", 1, 1, 2, 2))
    apart = read_dataset(DatasetPaths(tmp_path, annotations=tmp_path / "C", images=tmp_path))
    assert kinds(apart) == ["annotation cannot be read"] + ["image has no annotation"] * 2


def test_a_row_that_cannot_be_read_is_not_scored(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    head = "image,class_index,width,height,x1,y1,x2,y2"
    bad = ["a.jpg,0,0,0,1,1,9,9", "a.jpg,0,inf,9,1,1,9,9", "a.jpg,0,9,1e400,1,1,9,9"]
    text(tmp_path / "boxes.csv", head, *bad, "a.jpg,0,9,9,1,1,1e300,9")
    found = read_dataset(DatasetPaths(tmp_path / "boxes.csv"))
    assert not truths(found)
    assert kinds(found) == ["annotation cannot be read"] * 3 + ["box is inverted or empty"]


def test_files_of_odd_forms_are_refused_or_named(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    folder = tmp_path / "x"
    for name, content in {
        "a.xml": "<annotation><size><width>inf</width><height>2</height></size></annotation>",
        "b.xml": '<?xml version="1.0" encoding="foo"?><annotation/>',
        "c.xml": "\x00",
    }.items():
        text(folder / name, content)
    os.mkfifo(folder / "pipe.xml")
    found = read_dataset(DatasetPaths(folder, images=tmp_path))
    assert kinds(found).count("annotation cannot be read") == 3
    for name, content in {
        "sizes": "a.jpg,0,0",
        "padded sizes": "a.jpg,00,5",
        "labels": "a.jpg," + "9" * 5000,
    }.items():
        root = wsol(tmp_path / name, "a.jpg,1,2,3,4")
        file = "class_labels.txt" if name == "labels" else "image_sizes.txt"
        text(root / "test" / file, content)
        if name == "labels":
            with pytest.raises(UsageError, match=file):
                read_dataset(DatasetPaths(root, images=root / "photos"))
        else:
            assert truths(read_dataset(DatasetPaths(root, images=root / "photos")))
    table = text(tmp_path / "boxes.csv", "image,class,x1,y1,x2,y2", "a" * 200_000 + ",cat,1,2,3,4")
    with pytest.raises(UsageError, match="field larger"):
        read_dataset(DatasetPaths(table))
    text(table, "image,class,x1,y1,x2,y2", f"{'a' * 300}.jpg,cat,1,2,3,4", "a\0b.jpg,cat,1,2,3,4")
    assert kinds(read_dataset(DatasetPaths(table))) == ["image is missing"] * 2
    with pytest.raises(UsageError, match="no such data set"):
        read_dataset(DatasetPaths(Path("v" * 300)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bbox", [10**400, 0, 1, 1]),
        ("bbox", None),
        ("image_id", [1]),
        ("segmentation", "letters"),
        ("segmentation", [[1, 2, 3]]),
        ("segmentation", {"size": [30, float("inf")], "counts": [1]}),
        ("segmentation", {"size": [10**5, 10**5], "counts": [10**10]}),
        ("segmentation", {"size": [30, 40], "counts": "~~"}),
        ("segmentation", {"counts": [1]}),
    ],
)
def test_one_odd_annotation_of_cocos_is_named(tmp_path: Path, key: str, value: Any) -> None:
    photo(tmp_path / "a.jpg")
    given = document()
    good = given["annotations"][0]
    given["annotations"] = [good, good | {key: value, "category_id": 9}]
    given["images"] = given["images"][:1]
    found = read_dataset(DatasetPaths(text(tmp_path / "a.json", json.dumps(given))))
    assert kinds(found) == ["annotation cannot be read"]
    assert len(truths(found)) == 1


def test_cocos_ids_must_be_ids(tmp_path: Path) -> None:
    given = document()
    given["images"][0]["id"] = [1]
    with pytest.raises(UsageError, match="not COCO's JSON"):
        read_dataset(DatasetPaths(text(tmp_path / "a.json", json.dumps(given))))


def test_what_an_evaluation_wrote_is_not_part_of_the_data(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "out/gallery.jpg")
    text(tmp_path / "boxes.csv", "image,class,x1,y1,x2,y2", "a.jpg,cat,1,2,3,4")
    assert kinds(read_dataset(DatasetPaths(tmp_path))) == ["image has no annotation"]
    assert not kinds(read_dataset(DatasetPaths(tmp_path, skip_folder=tmp_path / "out")))


def test_polygons_cover_the_pixels_whose_middles_they_hold() -> None:
    corners = [[3.0, 2.0, 35.0, 6.5, 20.0, 27.0, 15.5, 9.0]]
    found = _polygons_to_mask(corners, (40, 30))
    outline = MplPath(np.array(corners[0]).reshape(-1, 2))
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    inside = outline.contains_points(np.stack([x.ravel(), y.ravel()], axis=1)).reshape(30, 40)
    assert (found == inside).all()
    assert 100 < found.sum() < 400
    beyond = _polygons_to_mask([[-9.0, -9.0, 99.0, -9.0, 99.0, 99.0, -9.0, 99.0]], (40, 30))
    assert beyond.all()


def test_limit_takes_images_whatever_their_classes_and_the_model(tmp_path: Path) -> None:
    for i in range(20):
        photo(tmp_path / f"{i}.jpg")
    rows = [f"{i}.jpg,{label},1,2,11,12" for i in range(20) for label in ("cat", "dog", "cow")]
    text(tmp_path / "boxes.csv", "image,class,x1,y1,x2,y2", *rows)
    found = read_dataset(DatasetPaths(tmp_path))
    one, other = (
        create_evaluation_samples(found, names, limit=4)[0]
        for names in (NAMES, labels.create_labels(["cow", "x"]))
    )
    assert len(one) == 8
    assert {i.annotation.image_name for i in one} == {i.annotation.image_name for i in other}
