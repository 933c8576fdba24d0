"""The networks that ship with camcli."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import PHOTOS, SAMPLES, Cli, noise

from camcli.models import model as models
from camcli.models.introspection import heads
from camcli.models.introspection.cls_attention import find_cls_row_reader
from camcli.models.model import Model
from camcli.models.zoo import builtin_names
from camcli.models.zoo import builtin_networks as builtin


@pytest.fixture(scope="module")
def tscam() -> Model:
    return models.load_model(builtin_names.BUILTIN_TSCAM, device="cpu")


def test_it_is_small() -> None:
    assert builtin_names.VIT_WEIGHTS_FILE.stat().st_size <= 8_000_000


def test_it_is_an_ordinary_transformer(tscam: Model) -> None:
    blocks = [layer for layer in tscam.layers if layer.block is not None]
    assert [layer.grid for layer in blocks] == [(14, 14)] * 4
    rows = find_cls_row_reader(tscam.network, tscam.attention_modules, tscam.input_size)
    assert rows is not None
    assert not rows.fused_modules  # the fused kernel stays on
    head = heads.find_head(tscam.network, tscam.layers, tscam.input_size, 1000)
    assert head is not None
    assert head.kind == "conv"
    assert tscam.labels.names[285] == "Egyptian cat"


def test_its_other_head_reads_the_cls_token() -> None:
    loaded = models.load_model(builtin_names.BUILTIN_VIT, device="cpu")
    head = heads.find_head(loaded.network, loaded.layers, loaded.input_size, 1000)
    assert head is not None
    assert (head.kind, head.exact) == ("linear", False)


def test_both_heads_are_of_one_network(tscam: Model) -> None:
    other = models.load_model(builtin_names.BUILTIN_VIT, device="cpu")
    image = noise(1, tscam.input_size)
    theirs, ours = (n.network.get_submodule("norm") for n in (other, tscam))
    seen: list[torch.Tensor] = []
    for norm, network in ((theirs, other.network), (ours, tscam.network)):
        hook = norm.register_forward_hook(lambda _m, _i, output: seen.append(output))
        network(image)
        hook.remove()
    assert torch.equal(*seen)


def test_tscam_without_a_model_is_the_embedded_transformer(cli: Cli) -> None:
    ran = cli("explain", SAMPLES, "--method", "tscam", "--save", "grid,boxes")
    assert ran.status == 0, ran.err
    assert {line["model"] for line in ran.lines} == {builtin_names.BUILTIN_TSCAM}
    assert {line["head"] for line in ran.lines} == {"conv"}
    names = [line["explanations"][0]["class_name"] for line in ran.lines]
    assert names[:2] == ["Egyptian cat", "espresso"]
    levels = {line["threshold"] for line in ran.lines}
    assert levels == {builtin.read_builtin_card().thresholds["tscam"]}
    assert {line["model"] for line in cli("explain", SAMPLES, "--output", "x").lines} == {
        builtin_names.BUILTIN_CNN
    }


def test_a_threshold_that_is_asked_for_wins(cli: Cli) -> None:
    ran = cli("explain", SAMPLES / "coffee.jpg", "--method", "tscam", "--threshold", 0.5)
    assert ran.lines[0]["threshold"] == 0.5


def test_parts_of_tscam_side_by_side(cli: Cli) -> None:
    methods = "tscam,tscam:part=attention,tscam:part=semantic"
    ran = cli("explain", SAMPLES / "chelsea.jpg", "--method", methods, "--save", "array")
    assert ran.status == 0, ran.err
    assert [line["method"] for line in ran.lines] == methods.split(",")
    maps = [
        np.load(Path("camcli-out") / line["explanations"][0]["files"]["array"])["285/fused"]
        for line in ran.lines
    ]
    np.testing.assert_allclose(maps[0], maps[1] * maps[2], rtol=1e-4, atol=1e-5)
    assert cli("explain", SAMPLES, "--method", "tscam:part=all").status == 2
    assert cli("explain", SAMPLES, "--method", "tscam", "--set", "part=all").status == 2


def test_a_head_can_be_trained_on_it(cli: Cli, tmp_path: Path) -> None:
    for name, photo in zip(("cat", "cup"), PHOTOS, strict=False):
        (tmp_path / "two" / name).mkdir(parents=True)
        for copy in range(3):
            target = tmp_path / "two" / name / f"{copy}.jpg"
            target.write_bytes(photo.read_bytes())
    ran = cli("train", "tscam", "two", "--train", "head", "--decay", 0.01)
    assert ran.status == 0, ran.err
    ran = cli("explain", "two", "--model", "camcli-train/model_best.safetensors")
    names = [line["explanations"][0]["class_name"] for line in ran.lines]
    assert names == ["cat"] * 3 + ["cup"] * 3
    assert {line["model"] for line in ran.lines} == {"tscam_vit_lite0"}


def test_another_size_is_refused(cli: Cli) -> None:
    ran = cli("explain", SAMPLES, "--method", "tscam", "--size", 320)
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)
    assert "trained at 224" in ran.err
