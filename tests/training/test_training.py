"""Training: the arithmetic of a head, small real runs, interrupted runs, and broken data."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import timm
import torch
from conftest import SAMPLES, Cli, lively, noise
from PIL import Image
from planted_photos import KINDS, create_photo, write_photos
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from camcli.core.errors import MethodError
from camcli.core.types import Transform
from camcli.models.introspection.heads import ConvHead, PooledHead, find_head
from camcli.models.model import wrap_network
from camcli.models.zoo.model_card import read_model_card
from camcli.models.zoo.replace_head import attach_gap_head, attach_tscam_head
from camcli.training.checkpointing import TrainingWriter
from camcli.training.logistic_regression import compute_window_means, fit_logistic_regression

VIT = ("--model", "test_vit", "--checkpoint", "tiny.safetensors")
QUICK = ("--epochs", 4, "--batch-size", 4, "--lr", 1e-3)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("planted") / "shapes", 30, 12, side=160)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The test's folder: a tiny transformer, and three classes of three photographs each."""
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "tiny.safetensors")
    write_photos(tmp_path / "few", 3, 0, side=160)
    (tmp_path / "few" / "boxes.csv").unlink()
    return tmp_path


def log(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "training.json").read_text())
    return found


def test_nine_windows_are_all_that_a_convolution_sees() -> None:
    head = ConvHead(8, 5, (4, 6), prefix=2).double()
    tokens = torch.randn(3, 2 + 24, 8, dtype=torch.float64)
    means = compute_window_means(tokens, 2, (4, 6))
    assert means.shape == (3, 9 * 8)
    assert head.conv.bias is not None
    found = means @ head.conv.weight.flatten(1).T + head.conv.bias
    torch.testing.assert_close(found, head(tokens), rtol=0, atol=1e-12)


def test_a_fit_is_scikit_learns_logistic_regression() -> None:
    pixels, digits = load_digits(return_X_y=True)
    train, test = slice(0, 600), slice(600, None)
    features = torch.from_numpy(pixels).float()
    wanted = nn.functional.one_hot(torch.from_numpy(digits).long(), 10).float()
    decay = 1e-3
    ours = fit_logistic_regression(features[train], wanted[train], decay)
    scaler = StandardScaler().fit(pixels[train])
    peer = LogisticRegression(C=1 / (decay * 600), max_iter=5000, tol=1e-8)
    peer.fit(scaler.transform(pixels[train]), digits[train])
    found = ours.compute_logits(features[test])
    theirs = torch.from_numpy(peer.predict_log_proba(scaler.transform(pixels[test])))
    assert (found.argmax(1) == theirs.argmax(1)).float().mean() > 0.99
    assert (found.log_softmax(1) - theirs).abs().median() < 0.02
    assert ours.losses[-1] <= min(ours.losses) * 1.001


def test_soft_targets_are_met() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 5, generator=generator)
    wanted = (features @ torch.randn(5, 3, generator=generator)).softmax(dim=1)
    fitted = fit_logistic_regression(features, wanted, 0.0)
    found = fitted.compute_logits(features).softmax(dim=1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_a_feature_that_never_varies_does_no_harm() -> None:
    features = torch.cat([torch.randn(40, 3), torch.full((40, 1), 7.0)], dim=1)
    wanted = nn.functional.one_hot((features[:, 0] > 0).long(), 2).float()
    fitted = fit_logistic_regression(features, wanted, 1e-2)
    assert torch.isfinite(fitted.weight).all()
    assert (fitted.compute_logits(features).argmax(1) == wanted.argmax(1)).float().mean() > 0.9


def test_a_trained_head_finds_what_was_planted(cli: Cli, place: Path, shapes: Path) -> None:
    ran = cli(
        *("train", "tscam", shapes, *VIT, "--train", "head", "--boxes", shapes / "boxes.csv"),
        *("--batch-size", 16, "--output", "trained"),
    )
    assert ran.status == 0, ran.err
    said = log(place / "trained")
    best = said["epochs"][said["best"] - 1]["judged"]  # type: ignore[index, operator]
    assert best["top1"] >= 0.95
    assert best["gt_known"] >= 0.8

    held = ("evaluate", "localization", shapes, "--format", "jsonl")
    model = ("--model", "trained/model_best.safetensors", "--method", "tscam")
    assert cli(*held, *model, "--output", "after").status == 0
    after = _found(place / "after")
    assert after["gt_known"] == pytest.approx(best["gt_known"], abs=0.03)  # at the stored threshold

    file = place / "trained" / "model_best.safetensors"
    with safetensors.safe_open(file, "pt") as opened:
        about = opened.metadata()
    torch.manual_seed(1)
    untrained = load_file(file)
    for name in ("head.conv.weight", "head.conv.bias"):
        untrained[name] = torch.randn_like(untrained[name])
    save_file(untrained, place / "untrained.safetensors", about)
    model = ("--model", "untrained.safetensors", "--method", "tscam")
    assert cli(*held, *model, "--output", "before").status == 0
    assert _found(place / "before")["max_box_acc"] <= after["max_box_acc"] - 0.2


def _found(folder: Path) -> dict[str, float]:
    rows = json.loads((folder / "localization.json").read_text())["rows"]
    return {name: metric["value"] for name, metric in rows[0]["metrics"].items()}


def test_training_all_of_it_learns(cli: Cli, place: Path, shapes: Path) -> None:
    ran = cli("train", "tscam", shapes, *VIT, "--epochs", 3, "--batch-size", 16, "--lr", 1e-3)
    assert ran.status == 0, ran.err
    said = log(place / "camcli-train")
    losses = [epoch["loss"] for epoch in said["epochs"]]  # type: ignore[attr-defined]
    assert losses[-1] < 0.5 * losses[0]
    for name in ("model_best.safetensors", "model_last.safetensors", "curve.png"):
        assert (place / "camcli-train" / name).stat().st_size > 1000
    ran = cli("explain", shapes / "disc", "--model", "camcli-train/model_last.safetensors")
    assert ran.status == 0, ran.err
    assert {line["head"] for line in ran.lines} == {"conv"}
    assert {line["method"] for line in ran.lines} == {"tscam"}
    names = [line["explanations"][0]["class_name"] for line in ran.lines]
    assert names.count("disc") > 0.8 * len(names)


@pytest.mark.parametrize("part", ["head", "last:2", "all"])
def test_the_same_seed_gives_the_same_head(cli: Cli, place: Path, part: str) -> None:
    for name in ("one", "two"):
        ran = cli("train", "tscam", "few", *VIT, *QUICK, "--train", part, "--output", name)
        assert ran.status == 0, ran.err
    one, two = (load_file(place / n / "model_best.safetensors") for n in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_only_what_is_asked_for_is_trained(cli: Cli, place: Path) -> None:
    ran = cli("train", "tscam", "few", *VIT, *QUICK, "--train", "last:1")
    assert ran.status == 0, ran.err
    before, after = (
        load_file(place / n) for n in ("tiny.safetensors", "camcli-train/model_last.safetensors")
    )
    changed = {key for key in before.keys() & after.keys() if not before[key].equal(after[key])}
    assert changed
    assert all(key.startswith(("blocks.5.", "norm.", "fc_norm.")) for key in changed)


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "tscam", "few", *VIT, *QUICK, "--output")
    assert cli(*command, "whole").status == 0

    add = TrainingWriter.write_epoch

    def stop_after_two(self: TrainingWriter, *given: object) -> bool:
        found = add(self, *given)  # type: ignore[arg-type]
        if len(self.epochs) == 2:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(TrainingWriter, "write_epoch", stop_after_two)
    assert cli(*command, "broken").status == 130
    monkeypatch.undo()
    monkeypatch.chdir(place)
    ran = cli(*command, "broken", "--resume")
    assert ran.status == 0, ran.err
    assert "resuming after epoch 2 of 4" in ran.err
    whole, broken = (load_file(place / n / "model_last.safetensors") for n in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    one, two = ([e["loss"] for e in log(place / n)["epochs"]] for n in ("whole", "broken"))  # type: ignore[attr-defined]
    assert one == two
    assert not list(place.glob("*/.*.tmp"))


def test_another_training_is_not_resumed(cli: Cli, place: Path) -> None:
    assert "no training to resume" in cli("train", "tscam", "few", *VIT, "--resume").err
    command = ("train", "tscam", "few", *VIT, "--epochs", 1, "--batch-size", 4)
    assert cli(*command).status == 0
    ran = cli(*command, "--resume", "--lr", 0.5)
    assert ran.status == 2
    assert "was trained with lr 5e-05" in ran.err
    ran = cli(*command, "--output", "camcli-train")
    assert ran.status == 2
    assert "already holds" in ran.err
    (place / "camcli-train" / "resume.pt").write_bytes(b"cut off")
    assert "cannot be read" in cli(*command, "--resume").err
    assert "cannot be resumed" in cli(*command, "--resume", "--train", "head").err


def test_a_loss_that_is_no_number_stops_it(cli: Cli, place: Path) -> None:
    ran = cli("train", "tscam", "few", *VIT, "--epochs", 3, "--batch-size", 4, "--lr", 1e30)
    assert ran.status == 2
    assert "the loss is nan in epoch" in ran.err
    assert "--lr" in ran.err


def test_a_network_of_nans_cannot_be_fitted(cli: Cli, place: Path) -> None:
    state = load_file(place / "tiny.safetensors")
    state["norm.weight"] *= float("nan")
    save_file(state, place / "tiny.safetensors")
    ran = cli("train", "tscam", "few", *VIT, "--train", "head")
    assert ran.status == 2
    assert "NaN" in ran.err


def test_inputs_are_never_changed(cli: Cli, place: Path) -> None:
    def state() -> dict[str, str]:
        files = [*(place / "few").rglob("*.png"), place / "tiny.safetensors"]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    before = state()
    assert cli("train", "tscam", "few", *VIT, *QUICK).status == 0
    assert state() == before


def test_unreadable_photographs_are_left_out_and_counted(cli: Cli, place: Path) -> None:
    (place / "few" / "disc" / "999.jpg").write_bytes(b"no picture")
    for part in ("head", "all"):
        ran = cli("train", "tscam", "few", *VIT, *QUICK, "--train", part, "--output", part)
        assert ran.status == 0, ran.err
        assert "999.jpg" in ran.err
        unreadable = log(place / part)["epochs"][0]["unreadable"]  # type: ignore[index]
        assert len(unreadable) == 1


def test_none_can_be_read(cli: Cli, place: Path) -> None:
    for path in (place / "few").rglob("*.png"):
        path.write_bytes(b"no picture")
    for part in ("head", "all"):
        ran = cli("train", "tscam", "few", *VIT, *QUICK, "--train", part, "--output", part)
        assert ran.status == 2
        assert "cannot read any" in ran.err


def remove(paths: Iterable[Path]) -> None:
    for path in paths:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda few: shutil.rmtree(few), "no such folder"),
        (lambda few: remove(sorted(few.iterdir())[1:]), "training needs two or more classes"),
        (lambda few: remove(few.iterdir()), "no training photographs"),
        (lambda few: (few / "empty").mkdir(), "no photograph for training: empty"),
        (
            lambda few: remove(list((few / "disc").iterdir())[1:]),
            "no photograph for training: disc",
        ),
    ],
)
def test_data_that_cannot_be_learnt_from(cli: Cli, place: Path, spoil: object, said: str) -> None:
    spoil(place / "few")  # type: ignore[operator]
    ran = cli("train", "tscam", "few", *VIT)
    assert ran.status == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_another_training_over_it_leaves_nothing_to_resume(cli: Cli, place: Path) -> None:
    assert cli("train", "tscam", "few", *VIT, *QUICK).status == 0
    ran = cli("train", "tscam", "few", *VIT, *QUICK, "--train", "head", "--overwrite")
    assert ran.status == 0, ran.err
    names = {path.name for path in (place / "camcli-train").iterdir()}
    assert names == {"model_best.safetensors", "training.json", "curve.png"}


@pytest.mark.parametrize("change", ["rename", "remove", "weights"])
def test_what_has_changed_is_not_resumed(cli: Cli, place: Path, change: str) -> None:
    command = ("train", "tscam", "few", *VIT, *QUICK)
    assert cli(*command).status == 0
    if change == "rename":
        (place / "few" / "disc").rename(place / "few" / "zebra")
    elif change == "remove":
        next((place / "few" / "disc").iterdir()).unlink()
    else:
        torch.manual_seed(1)
        save_file(timm.create_model("test_vit").state_dict(), place / "tiny.safetensors")
    ran = cli(*command, "--resume")
    assert ran.status == 2
    assert "was trained with other" in ran.err


@pytest.mark.parametrize(
    "spoil",
    [
        {"settings": [1]},
        {"network": {"a": "b"}},
        {"optimizer": {}},
        {"optimizer": {"state": {}, "param_groups": []}},
        {"epoch": -5},
        {"epoch": 10**6},
        {"log": "[]"},
        {"log": '[{"judged": {"top1": "x"}}]'},
    ],
)
def test_a_state_to_resume_is_hostile(cli: Cli, place: Path, spoil: dict[str, object]) -> None:
    command = ("train", "tscam", "few", *VIT, *QUICK)
    assert cli(*command).status == 0
    file = place / "camcli-train" / "resume.pt"
    said = torch.load(file, weights_only=True)
    torch.save({**said, **spoil}, file)
    ran = cli(*command, "--resume")
    assert ran.status == 2
    assert len(ran.err.splitlines()) <= 3
    assert "bug" not in ran.err


def test_the_last_step_can_break_it_too(cli: Cli, place: Path) -> None:
    ran = cli("train", "tscam", "few", *VIT, "--epochs", 1, "--batch-size", 64, "--lr", 1e30)
    assert ran.status == 2
    assert "NaN" in ran.err
    assert not (place / "camcli-train" / "model_best.safetensors").exists()
    for option in ("--lr", "--decay"):
        assert cli("train", "tscam", "few", *VIT, option, "inf").status == 2


def test_boxes_that_are_never_met_leave_no_threshold(cli: Cli, place: Path) -> None:
    (place / "b.csv").write_text("image,class,x1,y1,x2,y2\nfew/disc/000.png,disc,0,0,3,3\n")
    ran = cli("train", "tscam", "few", *VIT, "--train", "head", "--boxes", "b.csv")
    assert ran.status == 0, ran.err
    found = read_model_card(place / "camcli-train" / "model_best.safetensors")
    assert found is not None
    assert found.thresholds == {}


def test_what_is_read_is_not_written_over(cli: Cli, place: Path) -> None:
    (place / "own").mkdir()
    weights = place / "own" / "model_best.safetensors"
    shutil.copy(place / "tiny.safetensors", weights)
    before = weights.read_bytes()
    command = ("train", "tscam", "few", "--model", "test_vit", "--checkpoint", weights)
    for more in ((), ("--overwrite",)):
        ran = cli(*command, "--train", "head", "--output", "own", *more)
        assert ran.status == 2
        assert "this training reads" in ran.err
    assert weights.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told_first(cli: Cli, place: Path) -> None:
    (place / "file").write_text("")
    ran = cli("train", "tscam", "few", *VIT, "--train", "head", "--output", "file/inside")
    assert ran.status == 2
    assert "cannot write" in ran.err
    assert "training the head" not in ran.err


def test_a_part_to_train_on_alone(cli: Cli, place: Path) -> None:
    (place / "data").mkdir()
    (place / "few").rename(place / "data" / "train")
    shutil.copytree(place / "data" / "train", place / "data" / "dev")
    ran = cli("train", "tscam", "data", *VIT, "--train", "head", "--decay", 0.1)
    assert ran.status == 0, ran.err
    assert "3 classes, 6 photographs for training, 3" in ran.err


def test_results_among_the_data_are_no_class(cli: Cli, place: Path) -> None:
    command = ("train", "tscam", "few", *VIT, "--train", "head", "--output", "few/camcli-train")
    assert cli(*command).status == 0
    assert cli(*command, "--overwrite").status == 0


def test_a_class_in_a_name_that_is_not_unicode(cli: Cli, place: Path) -> None:
    odd = os.fsdecode(os.fsencode(place / "few") + b"/\xff\xfeodd")
    try:
        shutil.copytree(place / "few" / "disc", odd)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    ran = cli("train", "tscam", "few", *VIT, "--train", "head", "--decay", 0.1)
    assert ran.status == 0, ran.err
    best = "camcli-train/model_best.safetensors"
    assert cli("explain", "few/disc/000.png", "--model", best).status == 0


@pytest.mark.parametrize("part", ["head", "all"])
def test_a_class_that_cannot_be_read(cli: Cli, place: Path, part: str) -> None:
    for path in (place / "few" / "disc").iterdir():
        path.write_bytes(b"no picture")
    ran = cli("train", "tscam", "few", *VIT, *QUICK, "--train", part)
    assert ran.status == 2
    assert "cannot read any photographs of disc" in ran.err


@pytest.mark.parametrize("label", ["-1", "7", "999999999", "1.9", "1e18", ""])
def test_labels_that_do_not_count_from_zero(cli: Cli, place: Path, label: str) -> None:
    rows = [f"{kind}/{n:03}.png {k}" for k, kind in enumerate(KINDS) for n in range(3)]
    (place / "few" / "train.txt").write_text("\n".join([*rows, f"disc/000.png {label}"]))
    (place / "few" / "val.txt").write_text("\n".join(rows))
    ran = cli("train", "tscam", "few", *VIT, "--train", "head", "--decay", 0.1)
    assert "bug" not in ran.err
    assert len(ran.err.splitlines()) <= 6
    assert ran.status == 2, ran.err  # what is trained on would also validate: nothing is left


def test_links_to_classes_are_followed(cli: Cli, place: Path) -> None:
    (place / "links").mkdir()
    for kind in KINDS:
        (place / "links" / kind).symlink_to(place / "few" / kind)
    ran = cli("train", "tscam", "links", *VIT, "--train", "head", "--decay", 0.1)
    assert ran.status == 0, ran.err


def test_a_teacher_keeps_the_parts_apart(cli: Cli, place: Path) -> None:
    (place / "data").mkdir()
    shutil.copytree(place / "few", place / "data" / "val")
    (place / "few").rename(place / "data" / "train")
    ran = cli(
        *("train", "tscam", "data", *VIT, "--train", "head", "--decay", 0.1),
        *("--teacher", "tf_efficientnet_lite0"),
    )
    assert ran.status == 0, ran.err
    assert "1000 classes, 9 photographs for training, 9 for validation" in ran.err


@pytest.mark.parametrize(
    "options",
    [
        ("--teacher-checkpoint", "tiny.safetensors"),
        ("--teacher", "tf_efficientnet_lite0", "--labels", "names.txt"),
        ("--images", "few"),
    ],
)
def test_options_that_would_be_ignored(cli: Cli, place: Path, options: tuple[str, ...]) -> None:
    (place / "names.txt").write_text("a\nb\nc\n")
    ran = cli("train", "tscam", "few", *VIT, *options)
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("head", "name", "size"), [("gap", "test_efficientnet", 16), ("tscam", "test_vit", 16)]
)
def test_what_could_not_be_explained_is_not_trained(
    cli: Cli, place: Path, head: str, name: str, size: int
) -> None:
    sized: dict[str, Any] = {"img_size": size} if head == "tscam" else {}
    network = timm.create_model(name, **sized)
    save_file(network.state_dict(), place / "w.safetensors")
    ran = cli(
        *("train", head, "few", "--model", name, "--checkpoint", "w.safetensors"), "--size", size
    )
    assert (ran.status, "best" in ran.err) == (2, False), ran.err


def test_a_trained_file_can_be_trained_on(cli: Cli, place: Path) -> None:
    command = ("train", "tscam", "few", "--train", "head", "--decay", 0.1)
    assert cli(*command, *VIT, "--output", "one").status == 0
    again = ("--checkpoint", "one/model_best.safetensors", "--output", "two")
    ran = cli(*command, *again)
    assert ran.status == 0, ran.err


def test_one_photograph_is_no_data(cli: Cli, place: Path) -> None:
    (place / "one" / "cat").mkdir(parents=True)
    shutil.copy(SAMPLES / "chelsea.jpg", place / "one" / "cat")
    ran = cli("train", "tscam", "one", *VIT)
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--train", "middle"), "write head, last:N or all"),
        (("--train", "last:9"), "has 6 blocks"),
        (("--model", "resnet18"), "does not fit resnet18"),
        (("--checkpoint", "absent.pth"), "no such file"),
        (("--boxes", "absent.csv"), "no such file"),
        (("--labels", "names.txt"), "2 class names"),
    ],
)
def test_what_cannot_be_asked(cli: Cli, place: Path, options: tuple[str, ...], said: str) -> None:
    (place / "names.txt").write_text("one\ntwo\n")
    name, value = options
    given = dict(zip(VIT[::2], VIT[1::2], strict=True)) | {name: value}
    ran = cli("train", "tscam", "few", *(each for pair in given.items() for each in pair), *QUICK)
    assert ran.status == 2, ran.err
    assert said in ran.err


def test_a_teacher_needs_no_labels(cli: Cli, place: Path) -> None:
    (place / "photos").mkdir()
    for path in SAMPLES.glob("*.jpg"):
        for copy in range(3):
            shutil.copy(path, place / "photos" / f"{copy}{path.name}")
    ran = cli(
        *("train", "tscam", "photos", *VIT, "--teacher", "tf_efficientnet_lite0"),
        *("--train", "head", "--decay", 1e-4),
    )
    assert ran.status == 0, ran.err
    ran = cli("explain", "photos", "--model", "camcli-train/model_best.safetensors")
    names = {line["explanations"][0]["class_name"] for line in ran.lines}
    assert {"Egyptian cat", "espresso"} <= names


def test_cub_as_it_is_distributed(cli: Cli, place: Path) -> None:
    cub = place / "CUB_200_2011"
    lines: dict[str, list[str]] = {name: [] for name in ("images", "labels", "split", "boxes")}
    draw = np.random.default_rng(0)
    for number in range(1, 13):
        kind = list(KINDS)[number % 2]
        name = f"00{number % 2 + 1}.{kind}/{number}.png"
        (cub / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        image, (x1, y1, x2, y2) = create_photo(kind, draw, 160)
        image.save(cub / "images" / name)
        lines["images"].append(f"{number} {name}")
        lines["labels"].append(f"{number} {number % 2 + 1}")
        lines["split"].append(f"{number} {int(number <= 8)}")
        lines["boxes"].append(f"{number} {x1} {y1} {x2 - x1} {y2 - y1}")
    names = {"images": "images", "labels": "image_class_labels", "split": "train_test_split"}
    for key, rows in lines.items():
        file = f"{names.get(key, 'bounding_boxes')}.txt"
        (cub / file).write_text("\n".join(rows))
    (cub / "classes.txt").write_text("1 001.Red_Disc\n2 002.Green_Square\n")
    ran = cli("train", "tscam", cub, *VIT, "--train", "head", "--decay", 0.01)
    assert ran.status == 0, ran.err
    assert "CUB_200_2011: 2 classes, 8 photographs for training, 4 for validation, 4" in ran.err
    assert "GT-known" in ran.err
    ran = cli("explain", "few/disc/000.png", "--model", "camcli-train/model_best.safetensors")
    assert ran.lines[0]["explanations"][0]["class_name"] in ("Red Disc", "Green Square")


def test_lists_as_tscam_has_them(cli: Cli, place: Path) -> None:
    root = place / "imagenet"
    (root / "lists").mkdir(parents=True)
    rows = []
    for label, kind in enumerate(KINDS):
        shutil.copytree(place / "few" / kind, root / "train" / kind)
        rows += [f"{kind}/{number:03}.png {label}" for number in range(3)]
    shutil.copytree(root / "train", root / "val")
    (root / "lists" / "train.txt").write_text("\n".join(rows))
    held = [f"{row} 10 10 90 90" for row in rows]
    (root / "lists" / "val_folder_new.txt").write_text("\n".join([*held, "absent.png 0 1 1 9 9"]))
    ran = cli("train", "tscam", root, *VIT, "--train", "head", "--decay", 0.01)
    assert ran.status == 0, ran.err
    assert "lists: 3 classes, 9 photographs for training, 9 for validation, 9 of them" in ran.err
    assert "absent.png: image is missing" in ran.err


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "test_convnext", "tf_efficientnet_lite0"])
def test_a_gap_head_makes_cam_exact(name: str) -> None:
    network = attach_gap_head(lively(timm.create_model(name)), 7, (96, 96), name)
    for parameter in network.parameters():
        parameter.data.mul_(0.5)
    model = wrap_network(name, network, Transform((96, 96)))
    head = find_head(model.network, model.layers, model.input_size, 7)
    assert head is not None
    assert head.exact
    found = next(m for m in network.modules() if isinstance(m, PooledHead))
    assert found.out_features == 7
    assert network(noise(2, (96, 96))).shape == (2, 7)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224"])
def test_a_gap_head_is_for_cnns(name: str) -> None:
    network = timm.create_model(name)
    size = (160, 160) if name == "test_vit" else (224, 224)
    with pytest.raises(MethodError, match="train tscam"):
        attach_gap_head(network, 7, size, name)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "mixer_s32_224"])
def test_a_tscam_head_is_for_transformers_with_a_cls_token(name: str) -> None:
    with pytest.raises(MethodError, match="CLS token"):
        attach_tscam_head(timm.create_model(name), 7, (224, 224), name)


def test_gap_on_a_folder(cli: Cli, place: Path, shapes: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), place / "cnn.safetensors")
    ran = cli(
        *("train", "gap", shapes, "--model", "test_resnet", "--checkpoint", "cnn.safetensors"),
        *("--boxes", shapes / "boxes.csv"),
    )
    assert ran.status == 0, ran.err
    best = "camcli-train/model_best.safetensors"
    ran = cli("explain", shapes / "square", "--model", best, "--method", "cam,gradcam")
    assert ran.status == 0, ran.err
    assert ran.lines[0]["head"] == "linear"


CARD = {
    "head": "tscam",
    "model": "test_vit",
    "classes": ["a", "b"],
    "transform": {
        "size": [160, 160],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    },
    "thresholds": {"tscam": 0.2},
}


@pytest.mark.parametrize(
    "change",
    [
        {"head": "worm"},
        {"head": ["tscam"]},
        {"model": 7},
        {"model": "../../etc"},
        {"classes": []},
        {"classes": [1, 2]},
        {"classes": ["a"]},
        {"thresholds": {"tscam": 4}},
        {"thresholds": {"tscam": "nan"}},
        {"thresholds": None},
        {"transform": {**CARD["transform"], "size": [10**9, 10**9]}},  # type: ignore[dict-item]
        {"transform": {**CARD["transform"], "std": [0, 0, 0]}},  # type: ignore[dict-item]
        {"transform": {**CARD["transform"], "mean": [1e999, 0, 0]}},  # type: ignore[dict-item]
        {"transform": {**CARD["transform"], "interpolation": "eval"}},  # type: ignore[dict-item]
        {"transform": 3},
    ],
)
def test_a_card_is_hostile_until_it_is_read(
    cli: Cli, tmp_path: Path, change: dict[str, object]
) -> None:
    state = {"head.conv.weight": torch.zeros(2, 64, 3, 3)}
    card = json.dumps({**CARD, **change})
    save_file(state, tmp_path / "x.safetensors", {"camcli": card})
    ran = cli("explain", SAMPLES / "coffee.jpg", "--model", "x.safetensors")
    assert ran.status == 2
    assert len(ran.err.splitlines()) == 1, ran.err
    assert "bug" not in ran.err


def test_a_card_that_is_no_json(cli: Cli, tmp_path: Path) -> None:
    for text in ("", "[" * 100000, "null", '{"head": "tscam"}'):
        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", {"camcli": text})
        ran = cli("explain", SAMPLES / "coffee.jpg", "--model", "x.safetensors")
        assert ran.status == 2
        assert "bug" not in ran.err


def test_a_picture_of_another_shape(cli: Cli, place: Path) -> None:
    with Image.open(SAMPLES / "rocket.jpg") as photo:
        photo.resize((300, 40)).save(place / "few" / "disc" / "wide.jpg")
    assert cli("train", "tscam", "few", *VIT, *QUICK).status == 0
