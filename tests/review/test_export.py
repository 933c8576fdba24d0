"""Exports of a run, read by the readers of other tools or by the rules of these readers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from stored_runs import result_line, write_run

from camcli.core.errors import UsageError
from camcli.core.run_length import decode_mask, encode_mask
from camcli.evaluation.datasets.annotations import Annotation
from camcli.evaluation.datasets.coco import read_coco
from camcli.evaluation.datasets.voc import read_voc
from camcli.review.exporters import exporter_registry
from camcli.review.exporters.export_content import ExportContent, ExportFiles, ExportOptions
from camcli.review.exporters.exporter_registry import EXPORTERS, exporter, find_exporter
from camcli.review.exporters.mask_outlines import mask_to_polygons
from camcli.review.exporters.row_selection import select_row
from camcli.review.exporters.run_export import ExportSummary, export_every_row, export_row
from camcli.review.stored_run import open_run

# pycocotools 2.0.11 has an __array__ of before NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FORMATS = ("coco", "yolo", "voc", "label-studio")
HOSTILE_NAMES = (
    '<b>&amp;"cat"\'</b>',
    "line\nbreak\ttab",
    "\u202egnp.exe",
    "\ud800 lone",
    "\x00\x1b[31m",
    "%s {0} $image: - [",
    "  ",
    "雪豹 🐈",
)


def box(x1: int, y1: int, x2: int, y2: int, score: float = 0.5) -> dict[str, Any]:
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "score": score}


def image_line(name: str, *boxes: dict[str, Any], **explanation: Any) -> dict[str, Any]:
    return result_line(
        image=name, path=f"photos/{name}", explanation={"boxes": list(boxes), **explanation}
    )


def export(
    run: Path,
    name: str,
    output: Path | None = None,
    method: str | None = None,
    layers: str | None = None,
    overwrite: bool = False,
    **options: Any,
) -> ExportSummary:
    stored, chosen = open_run(run), find_exporter(name)
    row = select_row(stored, method, layers)
    given_options = ExportOptions(**options)
    chosen.check_options(given_options)
    folder = output or run / f"export-{name}"
    return export_row(stored, row, chosen, given_options, folder, overwrite=overwrite)


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three images of 40 x 20: two classes, two boxes of one class, none."""
    other = {"class_index": 0, "class_name": "tench", "score": 0.25, "map_status": "ok"}
    both = image_line("a.jpg", box(1, 2, 30, 20))
    both["explanations"].append({**other, "boxes": [box(0, 0, 40, 20, 0.75)], "files": {}})
    return write_run(
        tmp_path / "run",
        both,
        image_line("sub/b.png", box(0, 0, 10, 10), box(20, 5, 40, 20)),
        image_line("c.jpg", map_status="constant"),
    )


# COCO


def average_precision(folder: Path, kind: str) -> float:
    truth = COCO(str(folder / "annotations.json"))
    found = truth.loadRes(str(folder / "results.json"))
    scores = COCOeval(truth, found, kind)
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    return float(scores.stats[0])


def test_coco_scores_itself_with_one(run: Path) -> None:
    summary = export(run, "coco")
    assert (summary.box_count, summary.image_count, summary.class_count) == (4, 3, 2)
    assert average_precision(summary.folder, "bbox") == pytest.approx(1.0)


def test_coco_has_the_fields_that_readers_need(run: Path) -> None:
    folder = export(run, "coco").folder
    document, results = load(folder / "annotations.json"), load(folder / "results.json")
    assert document["categories"] == [{"id": 1, "name": "tench"}, {"id": 282, "name": "tabby"}]
    assert document["images"][1] == {"id": 2, "file_name": "sub/b.png", "width": 40, "height": 20}
    assert [a["id"] for a in document["annotations"]] == [1, 2, 3, 4]
    first = document["annotations"][0]
    assert first == {
        "id": 1,
        "image_id": 1,
        "category_id": 282,
        "bbox": [1, 2, 29, 18],
        "area": 522,
        "iscrowd": 0,
        "score": 0.5,
        "map_score": 0.5,
        "method": "gradcam",
    }
    assert results[0] == {k: v for k, v in first.items() if k not in ("id", "area", "iscrowd")}
    assert results[1]["score"] == 0.25
    assert results[1]["map_score"] == 0.75


@pytest.mark.parametrize(
    ("changes", "score"),
    [
        ({"score": None}, 0.75),
        ({"score": 17.5, "score_kind": "value"}, 0.75),
        ({"score": -0.5, "score_kind": "similarity"}, 0.75),
        ({"score": 1e300}, 1.0),
    ],
)
def test_without_a_probability_the_map_gives_the_score(
    tmp_path: Path, changes: dict[str, Any], score: float
) -> None:
    line = image_line("a.jpg", box(0, 0, 9, 9, 0.75), **changes)
    folder = export(write_run(tmp_path / "run", line), "coco").folder
    assert load(folder / "results.json")[0]["score"] == score


def test_a_contrast_keeps_its_class_and_says_its_rivals(tmp_path: Path) -> None:
    rival = {"against": [{"class_index": 287, "class_name": "lynx"}]}
    run = write_run(tmp_path / "run", image_line("a.jpg", box(0, 0, 9, 9), **rival))
    document = load(export(run, "coco").folder / "annotations.json")
    assert document["categories"] == [{"id": 282, "name": "tabby"}]
    assert document["annotations"][0]["label"] == "tabby vs lynx"


def test_classes_of_one_name_get_their_index(tmp_path: Path) -> None:
    lines = [
        image_line(f"{index}.jpg", box(0, 0, 9, 9), class_index=index, class_name=name)
        for index, name in ((134, "crane"), (517, "crane"), (3, "crane (134)"))
    ]
    run = write_run(tmp_path / "run", *lines)
    names = {
        c["id"]: c["name"]
        for c in load(export(run, "coco").folder / "annotations.json")["categories"]
    }
    assert names == {4: "crane (134)", 135: "crane (134) (134)", 518: "crane (517)"}


def test_a_network_without_classes_has_one(tmp_path: Path) -> None:
    line = image_line("a.jpg", box(0, 0, 9, 9), class_index=None, class_name=None, score=None)
    folder = export(write_run(tmp_path / "run", line), "coco").folder
    assert load(folder / "annotations.json")["categories"] == [{"id": 1, "name": "object"}]


# masks


def blob(seed: int, height: int = 20, width: int = 40) -> NDArray[np.bool_]:
    noise = np.random.default_rng(seed).standard_normal((height, width))
    mask: NDArray[np.bool_] = ndimage.gaussian_filter(noise, 1.5) > 0
    return mask


def bounds(mask: NDArray[np.bool_]) -> dict[str, Any]:
    ys, xs = np.nonzero(mask)
    return box(int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)


def masked_run(folder: Path, mask: NDArray[np.bool_], *boxes: dict[str, Any]) -> Path:
    runs = encode_mask(mask)
    return write_run(folder, image_line("a.jpg", *(boxes or (bounds(mask),)), mask=runs))


def segmentations(folder: Path) -> list[NDArray[np.bool_]]:
    truth = COCO(str(folder / "annotations.json"))
    return [truth.annToMask(annotation) > 0 for annotation in truth.anns.values()]


def test_rle_is_the_stored_mask(tmp_path: Path) -> None:
    mask = blob(1)
    folder = export(masked_run(tmp_path / "run", mask), "coco", masks="rle").folder
    (read,) = segmentations(folder)
    assert (read == mask).all()
    assert load(folder / "annotations.json")["annotations"][0]["area"] == mask.sum()
    assert average_precision(folder, "segm") == pytest.approx(1.0)


def test_each_box_gets_the_region_that_it_bounds(tmp_path: Path) -> None:
    first, second = np.zeros((2, 20, 40), bool)
    first[2:18, 2:6] = first[14:18, 2:30] = True  # an L, whose box holds the second region
    second[4:8, 12:20] = True
    run = masked_run(tmp_path / "run", first | second, bounds(second), bounds(first))
    one, other = segmentations(export(run, "coco", masks="rle").folder)
    assert (one == second).all()
    assert (other == first).all()


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_the_mask_without_holes(seed: int) -> None:
    mask = blob(seed)
    polygons, hole_count = mask_to_polygons(mask)
    filled = ndimage.binary_fill_holes(mask, np.ones((3, 3)))
    read = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *mask.shape)))
    assert (read.astype(bool) == filled).all()
    assert bool(hole_count) == bool((filled != mask).any())


def test_filled_holes_are_counted(tmp_path: Path) -> None:
    ring = np.zeros((20, 40), bool)
    ring[2:12, 2:12] = True
    ring[5:8, 5:8] = False
    summary = export(masked_run(tmp_path / "run", ring), "coco", masks="polygons")
    assert re.match("1 mask with holes", summary.notes[0])
    (read,) = segmentations(summary.folder)
    assert read.sum() == 100
    assert average_precision(summary.folder, "segm") == pytest.approx(1.0)


def test_a_run_without_masks_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="repeat it with --save mask"):
        export(run, "coco", masks="rle")


@pytest.mark.parametrize("counts", ["", "zzzz", "\x7f", "é", "0" * 50, "o" * 40])
def test_a_damaged_mask_is_counted(tmp_path: Path, counts: str) -> None:
    good = image_line("a.jpg", box(0, 0, 9, 9), mask=encode_mask(blob(0)))
    bad = image_line("b.jpg", box(0, 0, 9, 9), mask={"size": [20, 40], "counts": counts})
    summary = export(write_run(tmp_path / "run", good, bad), "coco", masks="rle")
    assert summary.problems == ("1 box without segmentation: the mask is missing or damaged",)
    assert average_precision(summary.folder, "bbox") == pytest.approx(1.0)


def test_a_mask_of_a_huge_image_is_not_decoded(tmp_path: Path) -> None:
    side = 2**30
    line = image_line("a.jpg", box(0, 0, 9, 9), mask={"size": [side, side], "counts": "0"})
    line |= {"width": side, "height": side}
    assert len(export(write_run(tmp_path / "run", line), "coco", masks="rle").problems) == 1


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=6))
def test_a_mask_survives_its_encoding(rows: list[list[bool]]) -> None:
    mask = np.array(rows)
    encoded = encode_mask(mask)
    assert (decode_mask(encoded["counts"], (len(rows), 4)) == mask).all()
    assert (coco_mask.decode(dict(encoded)).astype(bool) == mask).all()


# --categories


def own_annotations(folder: Path, categories: Sequence[Any], images: Sequence[Any]) -> Path:
    file = folder / "own.json"
    document = {
        "categories": [{"id": n, "name": name} for n, name in categories],
        "images": [{"id": n, "file_name": name} for n, name in images],
    }
    file.write_text(json.dumps(document))
    return file


def test_ids_are_those_of_the_users_own_file(run: Path, tmp_path: Path) -> None:
    images = [(70, "a.jpg"), (80, "val/b.png"), (90, "c.jpg"), (91, "d.jpg")]
    file = own_annotations(tmp_path, [(5, "tabby"), (6, "tench"), (7, "dog")], images)
    summary = export(run, "coco", categories=file)
    assert not summary.problems
    results = load(summary.folder / "results.json")
    assert [(r["image_id"], r["category_id"]) for r in results] == [
        (70, 5),
        (70, 6),
        (80, 5),
        (80, 5),
    ]
    assert average_precision(summary.folder, "bbox") == pytest.approx(1.0)


def test_what_the_users_file_lacks_is_counted(run: Path, tmp_path: Path) -> None:
    file = own_annotations(tmp_path, [(5, "tabby")], [(70, "a.jpg")])
    summary = export(run, "coco", categories=file)
    assert summary.box_count == 1
    assert summary.problems == (
        f"2 images left out: not in {file}",
        f"1 box left out: {file} lacks the class tench (1)",
    )


@pytest.mark.parametrize(
    ("categories", "images", "says"),
    [
        ([(5, "dog")], [(70, "a.jpg")], "none of the run's classes, such as"),
        ([(5, "tabby")], [(70, "z.jpg")], "none of the run's images"),
        ([(5, "tabby"), (6, "tabby ")], [(70, "a.jpg")], "two classes have the name tabby"),
        ([(5, "tabby")], [(1, "a.jpg"), (2, "a.jpg")], "two images have the name a.jpg"),
        ([([], "tabby")], [(70, "a.jpg")], "not COCO's JSON"),
        ([(5, None)], [(70, "a.jpg")], "not COCO's JSON"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    run: Path, tmp_path: Path, categories: list[Any], images: list[Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        export(run, "coco", categories=own_annotations(tmp_path, categories, images))


# YOLO, by the rules of ultralytics: check_det_dataset, img2label_paths, verify_image_label


def check_yolo(folder: Path, columns: int = 5) -> dict[str, NDArray[np.float64]]:
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert "path" not in data
    assert list(data["names"]) == list(range(len(data["names"])))
    found = {}
    for image in sorted((folder / data["train"]).rglob("*.*")):
        assert image.suffix[1:].lower() in {"jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff"}
        before, after = f"{os.sep}images{os.sep}", f"{os.sep}labels{os.sep}"
        label = after.join(str(image).rsplit(before, 1)).rsplit(".", 1)[0] + ".txt"
        rows = [line.split() for line in Path(label).read_text().splitlines() if line]
        assert all(len(row) == columns for row in rows)
        values = np.array(rows, float).reshape(-1, columns)
        assert (values[:, 1:] <= 1).all()
        assert (values >= 0).all()
        assert (values[:, 0] < max(len(data["names"]), 1)).all()
        found[image.name] = values
    return found


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The images of `run`; the run was made in the folder where they are."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "sub/b.png", "c.jpg"):
        save_image(tmp_path / "photos" / name)
    return tmp_path / "photos"


def save_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20)).save(path)


def test_yolo_passes_the_rules_of_its_trainer(run: Path, photos: Path) -> None:
    summary = export(run, "yolo")
    assert not summary.problems
    found = check_yolo(summary.folder)
    assert found["a.jpg"].tolist() == [[1, 0.3875, 0.55, 0.725, 0.9], [0, 0.5, 0.5, 1, 1]]
    assert len(found["b.png"]) == 2
    assert len(found["c.jpg"]) == 0
    link = summary.folder / "images/train/a.jpg"
    assert link.is_symlink()
    assert link.samefile(photos / "a.jpg")


def test_yolo_gives_scores_on_demand(run: Path, photos: Path) -> None:
    found = check_yolo(export(run, "yolo", conf=True).folder, columns=6)
    assert found["a.jpg"][:, 5].tolist() == [0.5, 0.25]


def test_a_folder_named_images_does_not_mislead_the_trainer(tmp_path: Path, photos: Path) -> None:
    save_image(photos / "images" / "d.jpg")
    lines = [image_line(name, box(0, 0, 9, 9)) for name in ("a.jpg", "images/d.jpg")]
    found = check_yolo(export(write_run(tmp_path / "run", *lines), "yolo").folder)
    assert [len(rows) for rows in found.values()] == [1, 1]
    assert (tmp_path / "run/export-yolo/labels/train/images_/d.txt").is_file()


@pytest.mark.parametrize("refused", [("symlink_to",), ("symlink_to", "hardlink_to")])
def test_images_are_copied_where_links_are_refused(
    run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, refused: tuple[str, ...]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    for name in refused:
        monkeypatch.setattr(Path, name, refuse)
    copy = export(run, "yolo").folder / "images/train/a.jpg"
    assert not copy.is_symlink()
    assert copy.read_bytes() == (photos / "a.jpg").read_bytes()


def test_missing_images_are_counted(run: Path, tmp_path: Path) -> None:
    summary = export(run, "yolo")
    assert "3 images not found" in summary.problems[0]
    assert len(list((summary.folder / "labels/train").rglob("*.txt"))) == 3


def test_only_images_are_linked(tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("key")
    line = image_line("a.jpg", box(0, 0, 9, 9)) | {"path": str(secret)}
    summary = export(write_run(tmp_path / "run", line), "yolo")
    assert len(summary.problems) == 1
    assert not (summary.folder / "images").exists()


def test_an_image_in_its_place_stays(tmp_path: Path) -> None:
    place = tmp_path / "data/images/train/a.jpg"
    save_image(place)
    before = place.read_bytes()
    run = write_run(tmp_path / "run", image_line("a.jpg", box(0, 0, 9, 9)) | {"path": str(place)})
    for overwrite in (False, True):
        export(run, "yolo", tmp_path / "data", overwrite=overwrite)
        assert not place.is_symlink()
        assert place.read_bytes() == before
    assert len(check_yolo(tmp_path / "data")["a.jpg"]) == 1


@pytest.mark.parametrize("is_exported_again", [True, False])
def test_an_image_that_took_the_place_of_a_link_stays(
    run: Path, photos: Path, tmp_path: Path, is_exported_again: bool
) -> None:
    output = tmp_path / "data"
    export(run, "yolo", output)
    place = output / "images/train/a.jpg"
    (photos / "a.jpg").replace(place)  # the link is gone, and this is the only copy
    name = str(place) if is_exported_again else "photos/c.jpg"
    line = image_line(Path(name).name, box(0, 0, 9, 9)) | {"path": name}
    export(write_run(tmp_path / "other", line), "yolo", output, overwrite=True)
    assert place.is_file()
    assert not place.is_symlink()


# VOC


def test_voc_counts_pixels_from_one(run: Path, tmp_path: Path) -> None:
    folder = export(run, "voc").folder
    root = ElementTree.parse(folder / "Annotations/a.xml").getroot()
    assert root.findtext("filename") == "a.jpg"
    assert [root.findtext(f"size/{tag}") for tag in ("width", "height")] == ["40", "20"]
    names = ("xmin", "ymin", "xmax", "ymax")
    corners = [
        [int(o.findtext(f"bndbox/{tag}") or 0) for tag in names] for o in root.iter("object")
    ]
    assert corners == [[2, 3, 30, 20], [1, 1, 40, 20]]
    assert [o.findtext("name") for o in root.iter("object")] == ["tabby", "tench"]
    listed = (folder / "ImageSets/Main/default.txt").read_text().split()
    assert listed == ["a", "sub/b", "c"]


def test_voc_is_read_by_camcli(run: Path, photos: Path) -> None:
    folder = export(run, "voc").folder
    found = [a for a in read_voc(folder, photos, None) if isinstance(a, Annotation)]
    boxes = {(a.image_name, a.label): a.boxes for a in found}
    assert boxes == {
        ("a.jpg", "tabby"): ((2.0, 3.0, 30.0, 20.0),),
        ("a.jpg", "tench"): ((1.0, 1.0, 40.0, 20.0),),
        ("sub/b.png", "tabby"): ((1.0, 1.0, 10.0, 10.0), (21.0, 6.0, 40.0, 20.0)),
    }


# Label Studio, by the rules of LabelInterface.validate_prediction


def check_label_studio(folder: Path) -> list[Any]:
    config = ElementTree.parse(folder / "config.xml").getroot()
    (picture,), (control,) = config.findall("Image"), config.findall("RectangleLabels")
    labels = [label.get("value") for label in control]
    assert len({*labels}) == len(labels)
    assert control.get("toName") == picture.get("name")
    tasks = load(folder / "tasks.json")
    for task in tasks:
        assert picture.get("value") == f"${next(iter(task['data']))}"
        for prediction in task["predictions"]:
            assert 0 <= prediction["score"] <= 1
            ids = [region["id"] for region in prediction["result"]]
            assert len({*ids}) == len(ids)
            for region in prediction["result"]:
                assert region["from_name"] == control.get("name")
                assert region["to_name"] == picture.get("name")
                assert region["type"] == control.tag.lower()
                value = region["value"]
                assert {*value["rectanglelabels"]} <= {*labels}
                for start, length in (("x", "width"), ("y", "height")):
                    assert value[start] >= 0
                    assert value[length] > 0
                    assert value[start] + value[length] <= 100 + 1e-9
    return list(tasks)


def test_label_studio_gets_percent(run: Path) -> None:
    tasks = check_label_studio(export(run, "label-studio").folder)
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/a.jpg"
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "net gradcam"
    assert prediction["score"] == 0.5
    value = prediction["result"][0]["value"]
    shown = [value[key] for key in ("x", "y", "width", "height", "rotation")]
    assert shown == pytest.approx([2.5, 10, 72.5, 90, 0])
    assert tasks[2]["predictions"] == []


def test_images_outside_the_current_folder_are_named_from_the_root(tmp_path: Path) -> None:
    line = image_line("a.jpg", box(0, 0, 9, 9)) | {"path": "/photos/ä b#.jpg"}
    summary = export(write_run(tmp_path / "run", line), "label-studio")
    (task,) = check_label_studio(summary.folder)
    assert unquote(task["data"]["image"]) == "/data/local-files/?d=photos/ä b#.jpg"
    assert "#" not in task["data"]["image"]
    assert len(summary.notes) == 1


# all formats


def test_several_methods_need_a_choice(tmp_path: Path) -> None:
    lines = [
        result_line(method=method, layers=[layer])
        for method, layer in (("gradcam", "x"), ("layercam", "x"), ("layercam", "y"))
    ]
    lines[1]["image"], lines[1]["path"] = "only.jpg", "only.jpg"
    run = write_run(tmp_path / "run", *lines)
    with pytest.raises(UsageError, match="--method gradcam or layercam"):
        export(run, "coco")
    with pytest.raises(UsageError, match="--layers x or y"):
        export(run, "coco", method="layercam")
    with pytest.raises(UsageError, match="did you mean layercam"):
        export(run, "coco", method="layercm")
    summary = export(run, "coco", method="layercam", layers="y")
    assert (summary.box_count, summary.image_count) == (1, 2)
    stored = open_run(run)
    folders = [s.folder.name for s in export_every_row(stored, find_exporter("voc"))]
    assert folders == ["gradcam", "layercam", "layercam-2"]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_run_gives_valid_files(tmp_path: Path, name: str) -> None:
    failed = {"image": "b.jpg", "path": "b.jpg", "status": "failed", "error": "truncated"}
    summary = export(write_run(tmp_path / "run", failed), name)
    assert "1 failed image left out: of unknown size" in summary.notes
    assert "the run has no boxes, so the files are without any" in summary.notes
    check_files(summary.folder)


@pytest.mark.parametrize("name", FORMATS)
def test_images_without_boxes_are_listed(tmp_path: Path, name: str) -> None:
    run = write_run(tmp_path / "run", image_line("a.jpg"), image_line("b.jpg", threshold="none"))
    summary = export(run, name)
    assert (summary.image_count, summary.box_count) == (2, 0)
    check_files(summary.folder)


def check_files(folder: Path) -> None:
    """Whether every file of an export can be read by a parser of its format."""
    for path in (p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".json":
            load(path)
        elif path.suffix == ".xml":
            ElementTree.parse(path)
    if (folder / "annotations.json").exists():
        COCO(str(folder / "annotations.json"))
    if (folder / "data.yaml").exists():
        check_yolo(folder)
    if (folder / "config.xml").exists():
        check_label_studio(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_names_stay_names(tmp_path: Path, name: str) -> None:
    paths = [
        *HOSTILE_NAMES,
        "../../up",
        "/etc/passwd",
        "",
        "..",
        "a" * 300,
        "x\\..\\y",
        "A.jpg",
        "a.png",
    ]
    lines = [
        image_line(path, box(0, 0, 9, 9), class_index=n, class_name=f"{path}")
        | {"path": path, "model": path, "method": "gradcam"}
        for n, path in enumerate(paths)
    ]
    before = {*tmp_path.parent.rglob("*")}
    output = tmp_path / "run" / "out"
    summary = export(write_run(tmp_path / "run", *lines), name, output)
    assert summary.box_count == len(paths)
    check_files(output)
    made = {*tmp_path.parent.rglob("*")} - before
    assert all(path.is_relative_to(tmp_path / "run") for path in made)
    assert all(path.name.isprintable() for path in output.rglob("*"))
    if name == "voc":
        labels = [
            ElementTree.parse(file).getroot().findtext("object/name")
            for file in (output / "Annotations").rglob("*.xml")
        ]
        assert len({*labels}) == len(paths)
    if name == "yolo":
        names = yaml.safe_load((output / "data.yaml").read_text())["names"]
        assert len({*names.values()}) == len(paths)
        assert names[0] == HOSTILE_NAMES[0]


@given(st.text(), st.text())
def test_any_name_gives_valid_coco(
    tmp_path_factory: pytest.TempPathFactory, image: str, label: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    run = write_run(folder / "run", image_line(image, box(0, 0, 9, 9), class_name=label))
    document = load(export(run, "coco").folder / "annotations.json")
    assert document["images"][0]["file_name"] == image
    assert document["categories"][0]["name"].isprintable()


def test_images_of_one_name_are_named_by_their_path(tmp_path: Path) -> None:
    lines = [image_line("a.jpg", box(0, 0, 9, 9)) | {"path": f"{n}/a.jpg"} for n in "12"]
    run = write_run(tmp_path / "run", *lines, lines[0])
    folder = export(run, "coco").folder
    document = load(folder / "annotations.json")
    assert [image["file_name"] for image in document["images"]] == ["1/a.jpg", "2/a.jpg"]
    assert len(document["annotations"]) == 2  # the repeated line counts once
    assert len(list(read_coco(folder / "annotations.json", tmp_path))) == 2


@pytest.mark.parametrize("name", FORMATS)
def test_a_second_export_needs_overwrite(run: Path, tmp_path: Path, name: str) -> None:
    folder = export(run, name).folder
    kept = folder / "mine.txt"
    kept.write_text("mine")
    with pytest.raises(UsageError, match="add --overwrite"):
        export(run, name)
    shorter = write_run(tmp_path / "shorter", image_line("a.jpg", box(0, 0, 9, 9)))
    export(shorter, name, folder, overwrite=True)
    fresh = export(shorter, name, tmp_path / "fresh").folder
    left = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    expected = {str(p.relative_to(fresh)) for p in fresh.rglob("*") if p.is_file()}
    assert left == expected | {"mine.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_others_are_never_replaced(run: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "annotations.json").write_text("mine")
    with pytest.raises(UsageError, match="no export made it"):
        export(run, "coco", tmp_path, overwrite=overwrite)
    assert (tmp_path / "annotations.json").read_text() == "mine"
    assert not (tmp_path / "export.json").exists()


def test_an_earlier_list_of_files_is_not_trusted(run: Path, tmp_path: Path) -> None:
    victim, outside = tmp_path / "victim.txt", tmp_path / "outside"
    victim.write_text("mine")
    outside.mkdir()
    (outside / "a.txt").write_text("mine")
    folder = run / "export-coco"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    names = ["../../victim.txt", str(victim), "link/a.txt", 7, "results.json"]
    (folder / "export.json").write_text(json.dumps({"files": names}))
    export(run, "coco", overwrite=True)
    assert victim.read_text() == (outside / "a.txt").read_text() == "mine"


def test_links_in_the_folder_do_not_lead_out(run: Path, photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / "export-yolo").mkdir()
    (run / "export-yolo" / "labels").symlink_to(outside)
    with pytest.raises(UsageError, match="leads out of the output folder"):
        export(run, "yolo")
    assert not [*outside.iterdir()]


def test_a_stranger_adds_a_format_in_one_function(run: Path) -> None:
    try:

        @exporter(help="one line per box")
        def box_lines(content: ExportContent, options: ExportOptions) -> ExportFiles:
            rows = [f"{i.name} {o.category.name}\n" for i in content.images for o in i.objects]
            return ExportFiles({"boxes.txt": "".join(rows).encode()})

        folder = export(run, "box-lines").folder
        assert (folder / "boxes.txt").read_text().splitlines()[0] == "a.jpg tabby"
        with pytest.raises(ValueError, match="twice"):
            exporter(help="again")(box_lines)
        with pytest.raises(UsageError, match="--conf works with --to yolo"):
            export(run, "box-lines", conf=True)
    finally:
        EXPORTERS.pop("box-lines", None)


def test_every_file_of_the_folder_is_a_format() -> None:
    folder = Path(exporter_registry.__file__).parent
    files = {path.stem for path in folder.glob("export_*.py")}
    named = {f"export_{each.name.replace('-', '_')}" for each in exporter_registry.list_exporters()}
    assert named <= files
    assert {each.name for each in exporter_registry.list_exporters()} == {*FORMATS}
