"""Class names to indices, and rules for which class of an image to explain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from camcli.core.errors import LabelsError, TargetError, UsageError
from camcli.core.types import ImageSource
from camcli.engine import targets
from camcli.engine.target_rules import TargetColumn, choose_target_columns
from camcli.io import labels

THREE = labels.create_labels(["great tit", "crow", "blue_tit"])


def choose(spec: str | list[str], logits: torch.Tensor, *paths: str) -> list[TargetColumn]:
    """The columns that `--target` chooses, of a network with a softmax."""
    target = targets.parse_target(spec)(THREE)
    fixed = [target.find_fixed_classes(source(path)) for path in paths]
    return choose_target_columns(target, fixed, lambda found: found.softmax(dim=1), logits)


def source(path: str) -> ImageSource:
    return ImageSource(Path(path), Path(path).name, "")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        *(("Egyptian cat", 285), ("egyptian_cat", 285), ("n02124075", 285), ("285", 285)),
        *(("tabby", 281), ("tabby cat", 281), ("tabby, tabby cat", 281)),
    ],
)
def test_imagenet_classes_by_any_of_their_names(text: str, index: int) -> None:
    assert labels.create_default_labels(1000).find_class(text) == index


def test_a_name_of_two_classes_asks_for_the_index() -> None:
    with pytest.raises(TargetError, match="134 or 517"):
        labels.create_default_labels(1000).find_class("crane")


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(TargetError, match="did you mean espresso"):
        labels.create_default_labels(1000).find_class("expresso")


@pytest.mark.parametrize("text", ["3", "-1", "1.0", "", "9" * 5000])
def test_no_such_class(text: str) -> None:
    with pytest.raises(TargetError, match="no class"):
        THREE.find_class(text)


def test_an_index_beyond_the_last_is_told_which_there_are() -> None:
    with pytest.raises(TargetError, match=r"^the model has no class 3; its indices are 0\.\.2$"):
        THREE.find_class("3")


@pytest.mark.parametrize(
    "content",
    [
        "a\nb\nc\n",
        "a\r\nb\r\nc",
        json.dumps(["a", "b", "c"]),
        json.dumps({"2": "c", "0": "a", "1": "b"}),
        json.dumps({"0": ["n1", "a"], "1": ["n2", "b"], "2": ["n3", "c"]}),
    ],
)
def test_label_files(tmp_path: Path, content: str) -> None:
    file = tmp_path / "names.txt"
    file.write_text(content)
    assert labels.load_labels(file, 3).names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\nb", "has 2 names, but the model has 3"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'{"0": "a", "2": "b", "3": "c"}', "without gaps"),
        (b'{"a": 1', "not JSON"),
        (b"[1, 2, 3]", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_label_files_that_do_not_fit(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes(content)
    with pytest.raises(LabelsError, match=says):
        labels.load_labels(file, 3)


def test_ranked_targets_follow_the_logits() -> None:
    logits = torch.tensor([[0.1, 3.0, 2.0], [9.0, 1.0, 5.0]])
    columns = choose("top:2", logits, "a.jpg", "b.jpg")
    assert [column.class_indices.tolist() for column in columns] == [[1, 0], [2, 2]]


def test_fixed_targets_are_one_class_an_image() -> None:
    (column,) = choose("folder", torch.zeros(2, 3), "data/crow/1.jpg", "data/Great_Tit/1.jpg")
    assert column.class_indices.tolist() == [1, 0]


def test_an_image_in_a_folder_of_no_class_has_no_target() -> None:
    with pytest.raises(TargetError, match="its folder does not name a class"):
        targets.parse_target("folder")(THREE).find_fixed_classes(source("data/jay/1.jpg"))


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("001.Laysan_Albatross", "Laysan Albatross"),
        ("12.crow", "crow"),
        ("great_tit", "great tit"),
        *((same, same) for same in ("n02124075", "crow.1", "1.5", "2.", "0.5mg", ".crow")),
    ],
)
def test_the_class_that_a_folder_is_named_after(folder: str, name: str) -> None:
    assert labels.folder_to_class_name(folder) == name


def test_folders_that_only_a_number_tells_apart_keep_it() -> None:
    names = labels.create_folder_labels(["001.crow", "002.crow", "003.great_tit"]).names
    assert names == ("001.crow", "002.crow", "great tit")


def test_a_number_before_a_class_is_read_alike_on_both_sides() -> None:
    target = targets.parse_target("folder")
    for names in (["great tit", "crow"], ["001.great_tit", "002.crow"]):
        known = labels.create_labels(names)
        found = target(known).find_fixed_classes
        assert [found(source(f"{f}/x.jpg")) for f in ("001.great_tit", "002.crow")] == [
            ((0,),),
            ((1,),),
        ]
        assert [known.find_class(text) for text in ("crow", "002.crow", "002.Crow")] == [1, 1, 1]
    exact = labels.create_labels(["crow", "2.crow"])  # names as they are come first
    assert [exact.find_class(text) for text in ("crow", "2.crow")] == [0, 1]


@pytest.mark.parametrize("with_names", [True, False])
def test_cubs_own_table_of_classes_is_a_list_of_targets(tmp_path: Path, with_names: bool) -> None:
    images = ["001.great_tit/a b.jpg", "003.blue_tit/c.jpg"]
    (tmp_path / "images.txt").write_text("".join(f"{n} {i}\n" for n, i in enumerate(images, 1)))
    (tmp_path / "image_class_labels.txt").write_text("1 1\n2 3\n")
    if with_names:
        (tmp_path / "classes.txt").write_text("1 001.great_tit\n2 002.crow\n3 003.blue_tit\n")
    target = targets.parse_target(f"@{tmp_path / 'image_class_labels.txt'}")(THREE)
    paths = [tmp_path / "images" / image for image in images]
    assert [target.find_fixed_classes(source(str(path))) for path in paths] == [((0,),), ((2,),)]
    below = ImageSource(Path("/elsewhere/c.jpg"), images[1], "")  # the input was CUB's images/
    assert target.find_fixed_classes(below) == ((2,),)
    (tmp_path / "images.txt").unlink()
    with pytest.raises(UsageError, match=r"image_class_labels\.txt, with its images\.txt"):
        targets.parse_target(f"@{tmp_path / 'image_class_labels.txt'}")


@pytest.mark.parametrize("header", ["image,class", "class_index,width,image"])
def test_a_list_of_targets(tmp_path: Path, header: str) -> None:
    row = {"image": "b/1.jpg", "class": "crow", "class_index": "1", "width": "5"}
    file = tmp_path / "t.csv"
    file.write_text(f"{header}\n{','.join(row[key] for key in header.split(','))}\n")
    target = targets.parse_target(f"@{file}")(THREE)
    assert target.find_fixed_classes(ImageSource(Path("/data/b/1.jpg"), "b/1.jpg", "")) == ((1,),)
    with pytest.raises(TargetError, match="not listed"):
        target.find_fixed_classes(source("2.jpg"))


def test_the_exact_path_in_a_list_comes_before_the_bare_name(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("image,class\na.jpg,0\nbirds/a.jpg,1\n")
    target = targets.parse_target(f"@{file}")(THREE)
    assert target.find_fixed_classes(ImageSource(tmp_path / "birds" / "a.jpg", "a.jpg", "")) == (
        (1,),
    )


@pytest.mark.parametrize(
    "content",
    [b"a.jpg,crow\n", b"image,class\na.jpg\n", b"image,class\na.jpg,crow\na.jpg,1\n", b"\xff\xff"],
)
def test_lists_of_targets_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"--target @.*"):
        targets.parse_target(f"@{file}")


@pytest.mark.parametrize("spec", ["top:0", "top:x", "top:", f"top:{'9' * 5000}"])
def test_targets_that_cannot_be(spec: str) -> None:
    with pytest.raises(UsageError, match="top:5"):
        targets.parse_target(spec)


@pytest.mark.parametrize("spec", ["top:4", "jay", "7"])
def test_targets_that_the_model_does_not_have(spec: str) -> None:
    with pytest.raises(UsageError, match="--target"):
        targets.parse_target(spec)(THREE)
