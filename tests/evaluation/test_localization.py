"""Localization evaluated from Python, with and without files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, Cli
from PIL import Image

from camcli.core.errors import MethodError, ModelError, UsageError
from camcli.evaluation import localization
from camcli.evaluation.datasets.annotations import Problem
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import read_dataset
from camcli.evaluation.gallery import encode_boxed_picture
from camcli.evaluation.localization import (
    LocalizationConfig,
    run_localization,
)
from camcli.evaluation.localization_evaluation import evaluate_localization
from camcli.evaluation.localization_report import LocalizationReport
from camcli.evaluation.predictions import MapSource, Prediction
from camcli.evaluation.reporter import EvaluationReporter
from camcli.evaluation.stored_maps import FolderMaps
from camcli.io.labels import create_default_labels
from camcli.models.model import Model, load_model


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two photographs; one of them has boxes of two classes."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("coffee.jpg", "chelsea.jpg"):
        (folder / name).symlink_to(SAMPLES / name)
    rows = [
        "image,class,x1,y1,x2,y2",
        "coffee.jpg,espresso,130,60,470,380",
        "coffee.jpg,Egyptian cat,1,1,90,90",
        "chelsea.jpg,Egyptian cat,60,10,420,300",
    ]
    (folder / "boxes.csv").write_text("\n".join(rows))
    return folder


def test_the_report_is_that_of_the_command(
    cli: Cli, model: Model, dataset: Path, tmp_path: Path
) -> None:
    command = ("evaluate", "localization", dataset, "--method", "gradcam,rise:masks=8")
    options = ("--layers", "last", "--layers", "stage4", "--resamples", "50", "--output", "a")
    assert cli(*command, *options).status == 0
    report = evaluate_localization(
        model,
        dataset,
        method=["gradcam", "rise:masks=8"],
        layers=["last", "stage4"],
        resamples=50,
        output=tmp_path / "b",
    )
    document = json.loads((tmp_path / "a/localization.json").read_text())
    assert report.to_dict() == document
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(
        p.name for p in (tmp_path / "a").iterdir()
    )
    for name in ("localization.json", "localization.csv", "images.jsonl"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_every_picture_is_written_with_the_iou_of_its_line(
    model: Model, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, str, float]] = []

    def encode(prediction: Prediction, iou: float, class_name: str) -> bytes:
        drawn.append((prediction.sample.annotation.image_name, class_name, iou))
        return encode_boxed_picture(prediction, iou, class_name)

    monkeypatch.setattr(localization, "encode_boxed_picture", encode)
    out = tmp_path / "o"
    settings: dict[str, Any] = {"layers": ["last", "stage4"], "resamples": 0, "output": out}
    evaluate_localization(model, dataset, gallery="all", **settings)
    lines = map(json.loads, (out / "images.jsonl").read_text().splitlines())
    told = [
        (li["image"], li["class_index"], li["iou"]) for li in lines if li["method"] == "gradcam"
    ]
    assert len(told) == 6  # three annotations, two rows
    find_class = model.labels.find_class
    shown = [(image, find_class(name), round(iou, 5)) for image, name, iou in drawn]
    assert sorted(shown) == sorted(told)
    pictures = sorted(
        p.relative_to(out / "gallery").as_posix() for p in out.glob("gallery/*/*.jpg")
    )
    names = ["chelsea.jpg", "coffee.Egyptian-cat.jpg", "coffee.espresso.jpg"]
    rows = [f"tf_efficientnet_lite0-gradcam-{layer}" for layer in ("blocks.4", "bn2")]
    assert pictures == [f"{row}/{name}" for row in rows for name in names]
    with Image.open(out / "gallery" / pictures[0]) as picture:
        assert min(picture.size) > 200
    evaluate_localization(model, dataset, overwrite=True, **settings)
    assert not [*out.glob("gallery/*/*.jpg")]


def test_rows_and_baselines_have_metrics_with_intervals(model: Model, dataset: Path) -> None:
    report = evaluate_localization(model, str(dataset), method="gradcam", layers="last", seed=3)
    assert [row.method for row in report.rows] == ["gradcam", "gaussian", "random"]
    assert [row.method for row in report.baselines] == ["gaussian", "random"]
    row = report.rows[0]
    assert (row.model, row.layers) == (model.name, tuple(row.row.layers))
    metric = row.metrics["gt_known"]
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low <= metric.value <= metric.high
    assert (report.complete, report.seed, report.problems) == (True, 3, ())


def test_without_an_output_folder_nothing_is_written(
    model: Model, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    evaluate_localization(model, dataset, limit=1, resamples=0)
    assert sorted(tmp_path.rglob("*")) == before


def test_each_class_of_an_image_is_explained_with_its_own_boxes(
    model: Model, dataset: Path, tmp_path: Path
) -> None:
    evaluate_localization(model, dataset, method="gradcam", resamples=0, output=tmp_path / "o")
    lines = [json.loads(x) for x in (tmp_path / "o/images.jsonl").read_text().splitlines()]
    scored = [line for line in lines if line["method"] == "gradcam"]
    cat, espresso = (model.labels.find_class(name) for name in ("Egyptian cat", "espresso"))
    assert [(line["image"], line["class_index"]) for line in scored] == [
        ("coffee.jpg", espresso),
        ("coffee.jpg", cat),
        ("chelsea.jpg", cat),
    ]
    assert scored[0]["rank"] == 0
    assert scored[1]["rank"] > 0
    assert scored[0]["iou"] > scored[1]["iou"]


def test_what_does_not_fit_is_an_error(model: Model, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gradcam"):
        evaluate_localization(model, dataset, method="gradcamm")
    with pytest.raises(UsageError, match="no such data set"):
        evaluate_localization(model, tmp_path / "absent")
    with pytest.raises(MethodError):
        evaluate_localization(model, dataset, method="tscam")
    with (dataset / "boxes.csv").open("a") as file:
        file.write("\ngone.jpg,espresso,1,1,9,9\n")
    with pytest.raises(UsageError, match=r"gone\.jpg: image is missing"):
        evaluate_localization(model, dataset, strict=True)


def write_maps(folder: Path) -> Path:
    folder.mkdir()
    np.save(folder / "coffee.npy", np.eye(7))
    return folder


def test_a_reporter_hears_of_progress_problems_and_the_report(
    dataset: Path, tmp_path: Path
) -> None:
    heard: list[object] = []

    @contextmanager
    def track(total: int) -> Iterator[Callable[[], None]]:
        heard.append(total)
        yield lambda: heard.append("step")

    def report_problem(problem: Problem) -> None:
        heard.append(problem.kind)

    def report_result(report: LocalizationReport) -> None:
        heard.append(report.complete)

    def sources() -> Iterator[MapSource]:
        yield FolderMaps(write_maps(tmp_path / "maps"), create_default_labels(1000))
        raise ModelError("the second model is broken")

    paths = DatasetPaths(dataset)
    config = LocalizationConfig(paths, read_dataset(paths), resamples=0)
    reporter = EvaluationReporter(track, report_problem, report_result=report_result)
    with pytest.raises(ModelError, match="second model"):
        run_localization(config, sources(), reporter)
    # Two annotations of coffee.jpg with a map and two baselines each; no map of chelsea.jpg.
    assert heard == [9, *["step"] * 6, "map is missing", "step", False]
