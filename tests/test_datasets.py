"""Each data set in its own form, made small: what is read, what is named as wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camcli import labels
from camcli.errors import UsageError
from camcli.evaluation.datasets import Dataset, Place, bind, read
from camcli.evaluation.readers.coco import _letters
from camcli.evaluation.truth import Problem, Truth

NAMES = labels.make(["cat", "dog", "tench"], [["n1"], ["n2"], ["n3"]])


def photo(path: Path, size: tuple[int, int] = (40, 30)) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path)
    return path.name


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def truths(dataset: Dataset) -> list[tuple[Any, ...]]:
    return [(t.image, t.label, t.boxes) for t in dataset.found if isinstance(t, Truth)]


def kinds(dataset: Dataset) -> list[str]:
    return sorted(p.kind for p in dataset.found if isinstance(p, Problem))


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
    found = read(Place(tmp_path))
    assert found.kind == "boxes.csv"
    assert truths(found) == [("a.jpg", 0, ((1, 2, 11, 12), (20, 2, 31, 12)))]
    assert kinds(found) == [
        "annotation cannot be read",
        "annotation cannot be read",
        "box is inverted or empty",
        "image has no annotation",
        "image is missing",
    ]
    assert truths(read(Place(tmp_path / "boxes.csv"))) == truths(found)


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
    found = read(Place(cub(tmp_path)))
    assert found.kind == "CUB_200_2011"
    assert truths(found) == [("001.Cat/a.jpg", 0, ((1, 2, 11, 22),))]
    assert kinds(found) == ["image has no annotation"]
    train = read(Place(tmp_path, split="train"))
    assert truths(train) == [("002.Dog/b.jpg", 1, ((0, 0, 5, 5),))]
    with pytest.raises(UsageError, match="test and train"):
        read(Place(tmp_path, split="val"))


def test_cubs_classes_are_found_by_name_in_a_model_of_other_classes(tmp_path: Path) -> None:
    items, problems = bind(read(Place(cub(tmp_path), split="train")), NAMES)
    assert [item.class_index for item in items] == [1]
    own = labels.make(["x", "y"])
    assert [i.class_index for i in bind(read(Place(tmp_path, split="train")), own)[0]] == [1]
    assert not problems


@pytest.mark.parametrize("name", ["bounding_boxes.txt", "train_test_split.txt"])
def test_a_missing_piece_is_named(tmp_path: Path, name: str) -> None:
    (cub(tmp_path) / name).unlink()
    with pytest.raises(UsageError, match=name):
        read(Place(tmp_path))


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
    found = read(Place(listed, images=tmp_path / "val"))
    assert found.kind == "TS-CAM list"
    assert truths(found) == [("n1/a.JPEG", 0, ((1, 2, 11, 12), (20, 2, 31, 12)))]
    assert kinds(found) == ["annotation cannot be read"] * 2 + ["image has no annotation"]


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
    found = read(Place(root, images=root / "photos"))
    assert found.kind == "wsolevaluation metadata"
    assert truths(found) == [("a.jpg", 0, ((10, 20, 110, 120), (1, 2, 3, 4)))]
    assert next(t for t in found.found if isinstance(t, Truth)).size == (400, 300)
    assert kinds(found) == ["annotation cannot be read", "image has no annotation"]


def test_wsolevaluations_metadata_with_masks(tmp_path: Path) -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 10:20] = 255
    for name, values in (("m1", mask), ("m2", mask[::-1]), ("i1", 255 - mask)):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(path)
    root = wsol(tmp_path, "a.jpg,m1.png,i1.png", "a.jpg,m2.png,", "b.jpg,gone.png,")
    found = read(Place(root, images=root / "photos", annotations=root / "masks"))
    a, b = (t for t in found.found if isinstance(t, Truth))
    assert [m().sum() for m in a.masks] == [100, 100]
    assert [m().sum() for m in a.ignored] == [1100]
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
    found = read(Place(tmp_path))
    assert found.kind == "VOC XML"
    assert truths(found) == [
        ("a.jpg", "cat", ((1, 2, 11, 12), (20, 2, 31, 12))),
        ("a.jpg", "dog", ((3, 4, 9, 9),)),
        ("b.jpg", "n3", ((1, 2, 11, 12),)),
    ]
    assert kinds(found) == ["annotation cannot be read"] * 2 + ["image has no annotation"] * 2
    items, _ = bind(found, NAMES)
    assert [(i.truth.image, i.class_index) for i in items] == [
        ("a.jpg", 0),
        ("a.jpg", 1),
        ("b.jpg", 2),
    ]
    text(tmp_path / "ImageSets/Main/val.txt", "b")
    assert [t[0] for t in truths(read(Place(tmp_path, split="val")))] == ["b.jpg"]
    with pytest.raises(UsageError, match="ImageSets/Main/test"):
        read(Place(tmp_path, split="test"))


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
                "segmentation": [[10, 5, 19, 5, 19, 14, 10, 14]],
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
    found = read(Place(tmp_path))
    assert found.kind == "COCO"
    assert truths(found) == [
        ("a.jpg", "cat", ((10, 5, 20, 15),)),
        ("b.jpg", "unicorn", ((0, 0, 5, 5),)),
    ]
    first = next(t for t in found.found if isinstance(t, Truth))
    assert first.masks[0]().sum() == 100
    crowd = first.ignored[0]()
    assert crowd.shape == (30, 40)
    assert crowd[:, 0].all()
    assert crowd.sum() == 30
    assert kinds(found) == ["annotation cannot be read"] * 3 + ["image has no annotation"]
    items, problems = bind(found, NAMES)
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
        assert _letters(letters(runs)) == runs


def test_several_annotation_files_are_chosen_from_by_split(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        text(tmp_path / f"annotations/instances_{split}.json", json.dumps(document()))
        photo(tmp_path / split / "a.jpg")
    with pytest.raises(UsageError, match="train2017, val2017: choose one by --split"):
        read(Place(tmp_path))
    assert truths(read(Place(tmp_path, split="val2017")))


@pytest.mark.parametrize(
    "content", ["{}", "[", '{"images": 3, "categories": [], "annotations": 1}']
)
def test_json_that_is_not_cocos_says_so(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="not COCO's JSON"):
        read(Place(text(tmp_path / "a.json", content)))


def test_a_folder_that_is_no_data_set_is_told_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"boxes\.csv"):
        read(Place(tmp_path))
    with pytest.raises(UsageError, match="no such data set"):
        read(Place(tmp_path / "none"))


def test_limit_is_a_fixed_shuffle_and_classes_are_kept_by_name(tmp_path: Path) -> None:
    rows = [f"{i}.jpg,{i % 3},1,2,11,12" for i in range(30)]
    for i in range(30):
        photo(tmp_path / f"{i}.jpg")
    text(tmp_path / "boxes.csv", "image,class_index,x1,y1,x2,y2", *rows)
    found = read(Place(tmp_path))
    few, more = ([i.truth.image for i in bind(found, NAMES, limit=n)[0]] for n in (5, 10))
    assert len(few) == 5
    assert set(few) < set(more)
    assert more != [f"{i}.jpg" for i in range(10)]
    dogs, _ = bind(found, NAMES, ["dog"])
    assert {item.class_index for item in dogs} == {1}
    with pytest.raises(Exception, match="no class 'cow'"):
        bind(found, NAMES, ["cow"])
