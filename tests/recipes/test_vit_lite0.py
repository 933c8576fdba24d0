"""The recipe of the built-in transformer: distillation on cached features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, SAMPLES, noise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from camcli.core.types import ImageSource
from camcli.models.introspection.cls_attention import find_cls_row_reader
from camcli.models.introspection.hooks import record_outputs
from camcli.models.model import load_model, wrap_network
from camcli.models.zoo import builtin_names
from camcli.models.zoo import builtin_networks as builtin
from camcli.models.zoo.checkpoints import load_weights
from recipes.vit_lite0 import augmentation, losses
from recipes.vit_lite0.__main__ import main
from recipes.vit_lite0.augmentation import CellWindow, DistillationData
from recipes.vit_lite0.feature_cache import sample_rectangle
from recipes.vit_lite0.student import Student
from recipes.vit_lite0.training import (
    DistillationConfig,
    compute_distillation_data,
    train_student,
)


@pytest.fixture(scope="module")
def data() -> DistillationData:
    sources = [ImageSource(path, path.name, path.stem) for path in PHOTOS]
    config = DistillationConfig(workers=1)
    return compute_distillation_data(sources, None, config, lambda _: None)[0]


def test_the_student_is_the_network(
    data: DistillationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained on cached features is what later runs on pixels."""
    torch.manual_seed(0)
    student = Student(data.views).eval()
    for parameter in student.parameters():
        parameter.data.normal_(0, 0.05)
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "autocast", lambda *_a, **_k: torch.enable_grad())
        whole = data.views.middle[:1].float(), data.views.deep[:1].float()
        said = student(*whole, (0, 0))
        classes = torch.tensor([[3, 999]])
        semantic = student.compute_semantic_maps(said.tokens, classes)
    network = builtin.assemble_builtin_vit(student.export_state_dict(), builtin_names.BUILTIN_TSCAM)
    found = wrap_network("x", network, load_model(device="cpu").transform)
    features = found.network.patch_embed.backbone  # type: ignore[union-attr]
    cached = torch.cat([whole[0], whole[1].repeat_interleave(2, 1).repeat_interleave(2, 2)], dim=3)
    features.forward = lambda _: cached.permute(0, 3, 1, 2)  # type: ignore[union-attr]
    rows = find_cls_row_reader(found.network, found.attention_modules, found.input_size)
    assert rows is not None
    hold: list[Tensor] = []
    conv = found.network.head.conv  # type: ignore[union-attr]
    hook = conv.register_forward_hook(lambda _m, _i, output: hold.append(output))  # type: ignore[union-attr]
    with record_outputs(found.network, reducers=rows.reducers) as recorded:
        logits = found.network(noise(1, found.input_size))
    hook.remove()
    torch.testing.assert_close(logits, said.conv_logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(hold[0][:, classes[0]], semantic, rtol=1e-3, atol=1e-3)
    attended = rows.stack_maps(recorded.reduced_outputs).sum(dim=1)
    torch.testing.assert_close(attended, said.cls_attention, rtol=1e-3, atol=1e-5)


def test_the_teacher_is_asked_about_the_mixture(data: DistillationData) -> None:
    cnn = builtin.load_builtin_cnn().eval()
    answers = losses.TeacherHead(cnn)
    plain = data.views.deep[:1].float()
    with torch.no_grad():
        said = answers.compute_logits(answers.compute_features(plain)).softmax(dim=1)
        picture = noise(1, (224, 224))
        deep = builtin.CnnFeatures(cnn)(picture)[:, 112:, ::2, ::2].permute(0, 2, 3, 1)
        exact = answers.compute_logits(answers.compute_features(deep))
        torch.testing.assert_close(exact, cnn(picture), rtol=1e-3, atol=1e-3)
    assert said.argmax() == 285  # the cat, even from bf16 features


def test_maps_follow_their_views(data: DistillationData) -> None:
    """A map placed in a window is the photograph's map where that window was cut."""
    ramp = torch.linspace(0, 1, 28)[None].expand(28, -1)
    upright = DistillationData(
        data.views, ramp[None].expand(len(PHOTOS), -1, -1).clone(), data.class_indices
    )
    which = torch.tensor([0, 1])  # whole, and mirrored
    placed = augmentation._warp_maps(upright, which, mirror=False, window=CellWindow(0, 0, 7, 7))
    torch.testing.assert_close(placed[0], placed[1].flip(1), rtol=0, atol=1e-5)
    assert (placed[0].diff(dim=1) > 0).all()
    again = augmentation._warp_maps(upright, which, mirror=True, window=CellWindow(0, 0, 7, 7))
    torch.testing.assert_close(again, placed.flip(2), rtol=0, atol=1e-5)
    part = augmentation._warp_maps(upright, which, mirror=False, window=CellWindow(2, 3, 4, 4))
    torch.testing.assert_close(part, placed[:, 4:12, 6:14], rtol=0, atol=1e-5)


def test_mixtures_are_what_they_say(data: DistillationData) -> None:
    draw = np.random.default_rng(0)
    plain = augmentation._crop_window(data, torch.arange(8), draw)
    mixed = augmentation._paste_samples(plain, draw)
    changed = (mixed.deep != plain.deep).any(dim=3)
    fine = changed.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert (mixed.class_maps[fine] == 0).all()
    assert torch.equal(
        mixed.class_maps[~fine] > 0, (plain.class_maps[~fine] > 0) & (mixed.class_maps[~fine] > 0)
    )
    both = augmentation._mix_samples(plain, draw)
    assert (
        both.object_maps <= torch.maximum(plain.class_maps, plain.class_maps.amax()) + 1e-6
    ).all()
    assert set(both.class_visibility.tolist()) <= {0.0, 1.0}


def test_cuts_stay_inside() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = sample_rectangle(draw)
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_distillation_learns_and_is_repeatable(data: DistillationData) -> None:
    how = DistillationConfig(steps=20, batch_size=8, lr=2e-3)
    first, second = (list(train_student(data, how)) for _ in range(2))
    report, student = first[-1]
    assert report.step == 20
    start = losses.compute_losses(
        Student(data.views),
        losses.TeacherHead(builtin.load_builtin_cnn().eval()),
        augmentation.create_feature_batch(data, torch.arange(8), np.random.default_rng(0)),
    )
    assert report.losses["coupled"] < float(start["coupled"].detach())
    one, two = student.export_state_dict(), second[-1][1].export_state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_command_writes_the_files_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    vit: nn.Module = timm.create_model("test_vit", num_classes=1000)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    options = ["--steps", "2", "--batch-size", "4", "--vit", "test_vit"]
    options += ["--checkpoint", "vit.safetensors", "--boxes", str(SAMPLES / "boxes.csv")]
    assert main([str(SAMPLES), *options]) == 0
    assert "GT-known" in capsys.readouterr().err
    made = load_file(tmp_path / "camcli-train" / builtin_names.VIT_WEIGHTS_FILE.name)
    shipped = load_file(builtin_names.VIT_WEIGHTS_FILE)
    assert {k: v.shape for k, v in made.items()} == {k: v.shape for k, v in shipped.items()}
    assert load_weights(builtin_names.VIT_WEIGHTS_FILE).keys() == made.keys()
    assert main([str(SAMPLES)]) == 2
    assert "already holds" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", [("--steps", "0"), ("--batch-size", "1"), ("--lr", "nan"), ("--seed", "x")]
)
def test_numbers_out_of_range_are_refused(option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(SAMPLES), *option])
    assert stopped.value.code == 2
