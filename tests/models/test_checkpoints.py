"""Weights files in every usual wrapping, and files that are none or mean harm."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import lively
from safetensors.torch import save_file
from torch import Tensor

from camcli.core.errors import CheckpointError, ModelError, UsageError
from camcli.models import model as models
from camcli.models.zoo import checkpoints, library
from camcli.models.zoo.libraries.timm import TimmLibrary

NAME = "test_resnet"
State = dict[str, Tensor]


def state(name: str = NAME, classes: int = 7) -> State:
    network = lively(timm.create_model(name, num_classes=classes))
    return {key: value.clone() for key, value in network.state_dict().items()}


def prefixed(prefix: str) -> Callable[[State], Any]:
    return lambda weights: {f"{prefix}{key}": value for key, value in weights.items()}


def mmpretrain(weights: State) -> Any:
    trunk = {f"backbone.{k}": v for k, v in weights.items() if not k.startswith("fc.")}
    head = {f"head.{k}": v for k, v in weights.items() if k.startswith("fc.")}
    return {"state_dict": trunk | head, "meta": {"epoch": 3}}


WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "bare": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 4, "args": argparse.Namespace(lr=0.1)},
    "model": lambda s: {"model": s, "best": np.float64(0.5)},
    "model_ema": lambda s: {"model_ema": s, "optimizer": {"state": {}}},
    "state_dict_ema": lambda s: {"state_dict_ema": s},
    "DataParallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "Lightning": lambda s: {"state_dict": prefixed("model.")(s)},
    "compiled in parallel": prefixed("module._orig_mod."),
    "mmpretrain": mmpretrain,
    "half precision": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_usual_wrappings(tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    weights = state()
    path = tmp_path / "w.pth"
    torch.save(wrap(weights), path)
    model = models.load_model(NAME, path, size=(64, 64))
    assert len(model.labels.names) == 7  # from the rows of the head
    for key, value in model.network.state_dict().items():
        assert torch.allclose(value.float(), weights[key].float(), atol=2e-3, rtol=1e-3), key


def test_numbers_as_numpy_1_pickled_them(tmp_path: Path) -> None:
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save({"state_dict": state(), "best": np.float64(0.5)}, new)
    with zipfile.ZipFile(new) as source, zipfile.ZipFile(old, "w") as copy:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            copy.writestr(item, content)
    assert len(checkpoints.load_weights(old)) == len(state())


@pytest.mark.parametrize("shape", [(1, 6, 192), (1, 1, 192), (1, 0, 192), (197,), ()])
def test_a_tscam_head_on_an_impossible_grid(tmp_path: Path, shape: tuple[int, ...]) -> None:
    weights = {"head.weight": torch.zeros(3, 192, 3, 3), "pos_embed": torch.zeros(shape)}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"position embeddings|match no known architecture"):
        models.load_model(str(tmp_path / "w.pth"))


def test_a_small_file_cannot_stand_for_a_huge_tensor(tmp_path: Path) -> None:
    weights = state() | {"fc.weight": torch.zeros(1, 1).expand(10**9, 96)}
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"1 of \d+ keys missing \(fc.weight\)"):
        models.load_model(NAME, tmp_path / "w.pth")


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "pt"])
def test_usual_suffixes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(state(), path)
    assert len(models.load_model(NAME, path, size=(64, 64)).labels.names) == 7


class Harm:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_pickled_code_does_not_run(tmp_path: Path, save: Callable[[Any, Path], Any]) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "ran"
    save({"state_dict": state(), "extra": Harm(trace)}, path)
    with pytest.raises(CheckpointError, match=r"code|not a checkpoint") as error:
        checkpoints.load_weights(path)
    assert "\n" not in str(error.value)
    assert not trace.exists()


NONE: dict[str, tuple[str, bytes]] = {
    "text": ("w.pth", b"hello\n"),
    "empty": ("w.pth", b""),
    "random": ("w.pt", bytes(range(256)) * 8),
    "zip": ("w.pth", b"PK\x03\x04" + b"\0" * 40),
    "safetensors": ("w.safetensors", b"\xff" * 64),
    "empty safetensors": ("w.safetensors", b""),
}


@pytest.mark.parametrize(("name", "content"), NONE.values(), ids=NONE.keys())
def test_files_that_are_no_checkpoint(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"not a checkpoint|could run code"):
        checkpoints.load_weights(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}, torch.zeros(3)])
def test_files_without_weights(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="contains no weights"):
        checkpoints.load_weights(path)


def test_a_misfit_is_counted_named_and_advised(tmp_path: Path) -> None:
    weights = state()
    weights["extra.weight"] = weights.pop("conv1.0.weight", next(iter(weights.values())))
    weights["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError) as error:
        models.load_model(NAME, tmp_path / "w.pth")
    message = str(error.value)
    assert "1 of" in message
    assert "keys unknown (extra.weight)" in message
    assert "1 keys with another shape (layer1.0.conv1.weight 1x2x3, not" in message
    assert "camcli models" in message


def test_a_checkpoint_of_nothing_that_is_known(tmp_path: Path) -> None:
    torch.save({"encoder.weight": torch.zeros(3, 3)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"package\.module:function"):
        models.load_model(str(tmp_path / "w.pth"))


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(ModelError, match=r"did you mean .*resnet18"):
        models.load_model("resnet_18")


def test_without_the_hub_the_message_names_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "is_reachable", lambda _address: False)
    monkeypatch.setattr(TimmLibrary, "is_cached", lambda _self, _name: False)
    with pytest.raises(ModelError, match="--checkpoint FILE"):
        models.load_model("resnet18")


def test_weights_from_the_hub_are_loaded_by_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's path, up to the download itself: what timm is asked for."""
    asked: dict[str, Any] = {}

    def create(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        return lively(real(name))

    real = timm.create_model
    monkeypatch.setattr(TimmLibrary, "is_cached", lambda _self, _name: True)
    monkeypatch.setattr(timm, "create_model", create)
    assert models.load_model("test_resnet", size=(64, 64)).name == "test_resnet"
    assert asked == {"name": "test_resnet", "pretrained": True}


def test_the_embedded_weights_classify_the_samples() -> None:
    from conftest import SAMPLES

    from camcli.io.images import load_image
    from camcli.io.transforms import compute_view, preprocess_image

    model = models.load_model(device="cpu")
    said = {}
    for name in ("chelsea", "coffee", "rocket", "motorcycle_left"):
        picture = load_image(SAMPLES / f"{name}.jpg")
        view = compute_view(*picture.size, model.transform, "squash")
        pixels = preprocess_image(picture, view, model.transform)
        logits = model.network(torch.from_numpy(pixels)[None]).softmax(1)[0]
        said[name] = (model.labels.names[int(logits.argmax())], round(float(logits.max()), 1))
    assert said == {
        "chelsea": ("Egyptian cat", 0.8),
        "coffee": ("espresso", 0.9),
        "rocket": ("drilling platform", 0.5),  # a mistake worth explaining
        "motorcycle_left": ("moped", 0.5),
    }


@pytest.mark.parametrize("prefix", ["module.", "model.backbone.", "_orig_mod."])
def test_a_prefix_in_safetensors(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "test_resnet.safetensors"
    save_file(prefixed(prefix)(state()), path)
    assert checkpoints.read_checkpoint(path).shapes.keys() == checkpoints.load_weights(path).keys()
    assert models.load_model(str(path), size=(64, 64)).name == NAME


@pytest.mark.parametrize("shape", [(10**7, 0), (2 * 10**18, 0), (0, 96), (5, 1)])
@pytest.mark.parametrize("name", [NAME, "torchvision:shufflenet_v2_x0_5"])
def test_a_head_of_no_width_is_no_reason_to_build_a_huge_one(
    tmp_path: Path, name: str, shape: tuple[int, int]
) -> None:
    torch.save(state() | {"fc.weight": torch.zeros(shape)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        models.load_model(name, tmp_path / "w.pth", size=(64, 64))


def test_positions_of_an_absurd_image_are_not_believed(tmp_path: Path) -> None:
    weights = state("test_vit") | {"pos_embed": torch.zeros(1, 1 + 10**4, 64)}
    torch.save(weights, tmp_path / "test_vit.pth")
    assert models.load_model("test_vit", tmp_path / "test_vit.pth").input_size[0] < 3000


def test_many_views_of_few_numbers_are_no_weights(tmp_path: Path) -> None:
    few = torch.zeros(1000, dtype=torch.float16)
    torch.save({f"{n}.weight": few.view(10, 100) for n in range(300)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no weights"):
        checkpoints.load_weights(tmp_path / "w.pth")


def test_densenets_as_torchvision_published_them(tmp_path: Path) -> None:
    network = lively(timm.create_model("densenet121", num_classes=3))
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
    found = {old.sub(r"\1.\2.", key): value for key, value in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in found
    torch.save(found, tmp_path / "densenet121.pth")
    loaded = models.load_model(str(tmp_path / "densenet121.pth"), size=(64, 64))
    image = torch.ones(1, 3, 64, 64)
    torch.testing.assert_close(loaded.network(image), network.eval()(image).detach())


def test_the_weights_of_a_network_that_is_wrapped_itself(tmp_path: Path) -> None:
    """Everybody's training code has `self.model = ...`, and saves it with that in front."""
    network = torch.nn.Module()
    network.model = lively(timm.create_model(NAME, num_classes=7))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    held = checkpoints.align_keys(checkpoints.load_weights(tmp_path / "w.pth"), network)
    assert held.keys() == network.state_dict().keys()


def test_another_patch_size_is_another_variant(tmp_path: Path) -> None:
    weights = state("test_vit")
    kernel = weights["patch_embed.proj.weight"]
    weights["patch_embed.proj.weight"] = torch.zeros(*kernel.shape[:2], 8, 8)
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="patches of 8x8"):
        models.load_model("test_vit", tmp_path / "w.pth")


def test_what_lies_beside_a_trunk_is_its_classifier_or_is_named(tmp_path: Path) -> None:
    weights = state("resnet10t")
    trunk = {f"backbone.{k}": v for k, v in weights.items() if not k.startswith("fc.")}
    head = {f"classifier.{k[3:]}": v for k, v in weights.items() if k.startswith("fc.")}
    neck = {"neck.weight": torch.zeros(3)}
    torch.save(trunk | head | neck, tmp_path / "resnet10t.pth")
    loaded = models.load_model(str(tmp_path / "resnet10t.pth"))
    assert (loaded.name, len(loaded.labels.names)) == ("resnet10t", 7)
    assert "neck" in loaded.note
    assert torch.equal(loaded.network.state_dict()["fc.weight"], weights["fc.weight"])
