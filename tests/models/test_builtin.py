"""The networks that ship, and the distillation that makes the transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, SAMPLES, Cli, noise
from safetensors.torch import load_file, save_file
from torch import nn

from camcli.core.types import ImageSource
from camcli.models import model as models
from camcli.models.introspection import attention, heads
from camcli.models.introspection.hooks import record_outputs
from camcli.models.model import Model
from camcli.models.zoo import builtin, checkpoints
from camcli.training.distillation import augmentation as mixing
from camcli.training.distillation import feature_cache as views
from camcli.training.distillation import loop as run
from camcli.training.distillation import losses
from camcli.training.distillation.augmentation import DistillationData
from camcli.training.distillation.loop import DistillationConfig
from camcli.training.distillation.student import Student


@pytest.fixture(scope="module")
def tscam() -> Model:
    return models.load_model(builtin.BUILTIN_TSCAM, device="cpu")


@pytest.fixture(scope="module")
def known() -> DistillationData:
    found = [ImageSource(path, path.name, path.stem) for path in PHOTOS]
    return run.compute_distillation_data(
        found, None, DistillationConfig(workers=1), lambda _: None
    )[0]


def test_it_is_small() -> None:
    assert builtin.VIT_WEIGHTS_FILE.stat().st_size <= 8_000_000


def test_it_is_an_ordinary_transformer(tscam: Model) -> None:
    assert isinstance(tscam.network, timm.models.VisionTransformer)
    blocks = [layer for layer in tscam.layers if layer.block is not None]
    assert [layer.grid for layer in blocks] == [(14, 14)] * builtin.VIT_DEPTH
    rows = attention.find_cls_row_reader(tscam.network, tscam.attention_modules, tscam.input_size)
    assert rows is not None
    assert not rows.fused_modules  # the fused kernel stays on
    head = heads.find_head(tscam.network, tscam.layers, tscam.input_size, 1000)
    assert head is not None
    assert head.kind == "conv"
    assert tscam.labels.names[285] == "Egyptian cat"


def test_its_other_head_reads_the_cls_token() -> None:
    loaded = models.load_model(builtin.BUILTIN_VIT, device="cpu")
    head = heads.find_head(loaded.network, loaded.layers, loaded.input_size, 1000)
    assert head is not None
    assert (head.kind, head.exact) == ("linear", False)


def test_both_heads_are_of_one_network(tscam: Model) -> None:
    other = models.load_model(builtin.BUILTIN_VIT, device="cpu")
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
    assert {line["model"] for line in ran.lines} == {builtin.BUILTIN_TSCAM}
    assert {line["head"] for line in ran.lines} == {"conv"}
    names = [line["explanations"][0]["class_name"] for line in ran.lines]
    assert names[:2] == ["Egyptian cat", "espresso"]
    levels = {line["threshold"] for line in ran.lines}
    assert levels == {builtin.read_builtin_card().thresholds["tscam"]}
    assert {line["model"] for line in cli("explain", SAMPLES, "--output", "x").lines} == {
        builtin.BUILTIN_CNN
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


def test_the_student_is_the_network(
    known: DistillationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained on cached features is what later runs on pixels."""
    torch.manual_seed(0)
    student = Student(known.views).eval()
    for parameter in student.parameters():
        parameter.data.normal_(0, 0.05)
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "autocast", lambda *_a, **_k: torch.enable_grad())
        whole = known.views.middle[:1].float(), known.views.deep[:1].float()
        said = student(*whole, (0, 0))
        classes = torch.tensor([[3, 999]])
        semantic = student.compute_semantic_maps(said.tokens, classes)
    network = builtin.assemble_builtin_vit(student.export_state_dict(), builtin.BUILTIN_TSCAM)
    found = models.wrap_network("x", network, models.load_model(device="cpu").transform)
    features = found.network.patch_embed.backbone  # type: ignore[union-attr]
    cached = torch.cat([whole[0], whole[1].repeat_interleave(2, 1).repeat_interleave(2, 2)], dim=3)
    features.forward = lambda _: cached.permute(0, 3, 1, 2)  # type: ignore[union-attr]
    rows = attention.find_cls_row_reader(found.network, found.attention_modules, found.input_size)
    assert rows is not None
    hold: list[torch.Tensor] = []
    conv = found.network.head.conv  # type: ignore[union-attr]
    hook = conv.register_forward_hook(lambda _m, _i, output: hold.append(output))  # type: ignore[union-attr]
    with record_outputs(found.network, reducers=rows.reducers) as recorded:
        logits = found.network(noise(1, found.input_size))
    hook.remove()
    torch.testing.assert_close(logits, said.conv_logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(hold[0][:, classes[0]], semantic, rtol=1e-3, atol=1e-3)
    attended = rows.stack_maps(recorded.reduced_outputs).sum(dim=1)
    torch.testing.assert_close(attended, said.cls_attention, rtol=1e-3, atol=1e-5)


def test_the_teacher_is_asked_about_the_mixture(known: DistillationData) -> None:
    cnn = builtin.load_builtin_cnn().eval()
    answers = losses.TeacherHead(cnn)
    plain = known.views.deep[:1].float()
    with torch.no_grad():
        said = answers.compute_logits(answers.compute_features(plain)).softmax(dim=1)
        picture = noise(1, (224, 224))
        deep = builtin.CnnFeatures(cnn)(picture)[:, 112:, ::2, ::2].permute(0, 2, 3, 1)
        exact = answers.compute_logits(answers.compute_features(deep))
        torch.testing.assert_close(exact, cnn(picture), rtol=1e-3, atol=1e-3)
    assert said.argmax() == 285  # the cat, even from bf16 features


def test_maps_follow_their_views(known: DistillationData) -> None:
    """A map placed in a window is the photograph's map where that window was cut."""
    ramp = torch.linspace(0, 1, 28)[None].expand(28, -1)
    upright = DistillationData(
        known.views, ramp[None].expand(len(PHOTOS), -1, -1).clone(), known.class_indices
    )
    which = torch.tensor([0, 1])  # whole, and mirrored
    placed = mixing._warp_maps(upright, which, mirror=False, window=(0, 0, 7, 7))
    torch.testing.assert_close(placed[0], placed[1].flip(1), rtol=0, atol=1e-5)
    assert (placed[0].diff(dim=1) > 0).all()
    again = mixing._warp_maps(upright, which, mirror=True, window=(0, 0, 7, 7))
    torch.testing.assert_close(again, placed.flip(2), rtol=0, atol=1e-5)
    part = mixing._warp_maps(upright, which, mirror=False, window=(2, 3, 4, 4))
    torch.testing.assert_close(part, placed[:, 4:12, 6:14], rtol=0, atol=1e-5)


def test_mixtures_are_what_they_say(known: DistillationData) -> None:
    draw = np.random.default_rng(0)
    plain = mixing._crop_window(known, torch.arange(8), draw)
    mixed = mixing._paste_samples(plain, draw)
    changed = (mixed.deep != plain.deep).any(dim=3)
    fine = changed.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (mixed.class_maps[fine] == 0).all()
    assert torch.equal(
        mixed.class_maps[~fine] > 0, (plain.class_maps[~fine] > 0) & (mixed.class_maps[~fine] > 0)
    )
    both = mixing._mix_samples(plain, draw)
    assert (
        both.object_maps <= torch.maximum(plain.class_maps, plain.class_maps.amax()) + 1e-6
    ).all()
    assert set(both.class_visibility.tolist()) <= {0.0, 1.0}


def test_cuts_stay_inside() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = views.sample_rectangle(draw)
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_distillation_learns_and_is_repeatable(known: DistillationData) -> None:
    how = DistillationConfig(steps=20, batch_size=8, lr=2e-3)
    first, second = (list(run.train_student(known, how)) for _ in range(2))
    report, student = first[-1]
    assert report.step == 20
    start = losses.compute_losses(
        Student(known.views),
        losses.TeacherHead(builtin.load_builtin_cnn().eval()),
        mixing.create_feature_batch(known, torch.arange(8), np.random.default_rng(0)),
    )
    assert report.losses["coupled"] < float(start["coupled"].detach())
    one, two = student.export_state_dict(), second[-1][1].export_state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_command_writes_what_ships(cli: Cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit: nn.Module = timm.create_model("test_vit", num_classes=1000)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    ran = cli(
        *("train", "embedded", SAMPLES, "--steps", 2, "--batch-size", 4),
        *("--vit", "test_vit", "--checkpoint", "vit.safetensors"),
        *("--boxes", SAMPLES / "boxes.csv"),
    )
    assert ran.status == 0, ran.err
    made = load_file(tmp_path / "camcli-train" / builtin.VIT_WEIGHTS_FILE.name)
    ships = load_file(builtin.VIT_WEIGHTS_FILE)
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in ships.items()}
    assert "GT-known" in ran.err
    assert cli("train", "embedded", SAMPLES).status == 2  # a training is there
    assert checkpoints.load_weights(builtin.VIT_WEIGHTS_FILE).keys() == made.keys()
