"""Weights whose classifier is not the architecture's own: built where its layers follow."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from conftest import Cli, lively, noise
from torch import Tensor, nn
from torchvision.models import mobilenet_v2, resnet18

from camcli.core.errors import CheckpointError, ModelError
from camcli.models.model import load_model
from camcli.models.zoo.deep_heads import write_head_function

SIZE = (64, 64)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def agree(chosen: tuple[str, Path | None], expected: nn.Module) -> Any:
    model = load_model(*chosen, size=SIZE, device="cpu")
    with torch.no_grad():
        wanted, found = expected.eval()(noise(2, SIZE)), model.network(noise(2, SIZE))
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
    return model


def saved(network: nn.Module, name: str = "best.pth") -> Path:
    torch.save(network.state_dict(), name)
    return Path(name)


HEADS: dict[str, tuple[Callable[[int], nn.Module], str]] = {
    "dropout, linear, ReLU, linear": (
        lambda w: nn.Sequential(nn.Dropout(), nn.Linear(w, 9), nn.ReLU(), nn.Linear(9, 7)),
        "Linear {w}-9, ReLU, Linear 9-7",
    ),
    "linear, ReLU, dropout, linear": (
        lambda w: nn.Sequential(nn.Linear(w, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 7)),
        "Linear {w}-9, ReLU, Linear 9-7",
    ),
    "norm before the ReLU": (
        lambda w: nn.Sequential(
            nn.Linear(w, 9, bias=False), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 7)
        ),
        "Linear {w}-9, BatchNorm1d, ReLU, Linear 9-7",
    ),
    "layer norm first": (
        lambda w: nn.Sequential(
            nn.LayerNorm(w), nn.Linear(w, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 7)
        ),
        "LayerNorm, Linear {w}-9, ReLU, Linear 9-8, ReLU, Linear 8-7",
    ),
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050", "test_vit"])
def test_a_classifier_of_several_layers_is_built_and_said(name: str, head: str) -> None:
    make, words = HEADS[head]
    network: Any = timm.create_model(name, num_classes=7)
    layer = network.default_cfg["classifier"]
    width = network.get_submodule(layer).in_features
    network.set_submodule(layer, make(width))
    path = saved(lively(network))
    named = saved(network, f"{name}.pth")
    for chosen in ((name, path), (str(named), None)):
        model = agree(chosen, network)
        assert f"classifier {layer} is taken to be {words.format(w=width)}" in model.note
        assert "ReLU is assumed" in model.note
        assert len(model.labels.names) == 7


def test_the_whole_sequential_of_torchvision_is_replaced() -> None:
    network = mobilenet_v2()
    network.classifier = nn.Sequential(nn.Linear(1280, 9), nn.ReLU(), nn.Linear(9, 7))
    path = saved(lively(network))
    for chosen in (("torchvision:mobilenet_v2", path), (str(path), None)):
        assert "classifier classifier is taken" in agree(chosen, network).note


def test_a_classifier_that_cannot_be_built_is_named_with_a_function(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    network: Any = lively(timm.create_model("test_resnet", num_classes=7))
    width = network.fc.in_features
    network.fc = nn.Sequential()
    network.fc.hidden, network.fc.last = nn.Linear(width, 9), nn.Linear(9, 7)
    saved(lively(network))
    ran = cli("layers", "best.pth")
    said, _, lines = ran.err.partition("\n")
    assert ran.status == 2
    for words in ("keys missing (fc.weight, fc.bias)", "All but the classifier fc fits"):
        assert words in said
    layers = f"OrderedDict(hidden=nn.Linear({width}, 9), last=nn.Linear(9, 7))"
    code = lines.replace("...", layers).replace(
        "nn\n", "nn\nfrom collections import OrderedDict\n", 1
    )
    Path("my_network.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    agree(("my_network:network", Path("best.pth")), network)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "resnet18.a1_in1k"])
def test_the_function_of_a_head_runs(name: str) -> None:
    layer = "classifier.1" if "torchvision" in name else "fc"
    scope: dict[str, Any] = {}
    exec(write_head_function(name, [layer]).replace("...", "nn.Identity()"), scope)
    assert isinstance(scope["network"]().get_submodule(layer), nn.Sequential)


def test_weights_without_a_name_are_the_common_network() -> None:
    model = agree((str(saved(network := lively(resnet18(num_classes=5)))), None), network)
    assert model.name == "resnet18"
    assert "best.pth is a resnet18 of 5 classes (rarely it is resnetblur18" in model.note
    named = load_model(str(Path("best.pth").rename("resnet18_run3.pth")), size=SIZE)
    assert "resnetblur18" not in named.note


class Pool(nn.Module):
    """fastai's AdaptiveConcatPool2d, written from its documentation: maximum, then mean."""

    def forward(self, x: Tensor) -> Tensor:
        pools = nn.functional.adaptive_max_pool2d(x, 1), nn.functional.adaptive_avg_pool2d(x, 1)
        return torch.cat(pools, 1)


def fastai_learner(classes: int = 7) -> nn.Module:
    """The layers that `vision_learner(dls, resnet18)` has."""
    body = nn.Sequential(*list(resnet18().children())[:-2])
    head = nn.Sequential(
        *(Pool(), nn.Flatten(), nn.BatchNorm1d(1024), nn.Dropout(0.25)),
        *(nn.Linear(1024, 512, bias=False), nn.ReLU(inplace=True)),
        *(nn.BatchNorm1d(512), nn.Dropout(0.5), nn.Linear(512, classes, bias=False)),
    )
    return lively(nn.Sequential(body, head)).eval()


def test_a_fastai_learner_is_built() -> None:
    network = fastai_learner()
    torch.save({"model": network.state_dict(), "opt": {"hypers": [{"lr": 0.1}]}}, "best.pth")
    model = agree(("best.pth", None), network)
    assert "fastai's resnet18" in model.note
    assert [layer.channels for layer in model.layers if layer.stage] == [64, 64, 128, 256, 512]
    average = nn.Sequential(network[0], nn.Sequential(  # type: ignore[index]
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 9), nn.ReLU(), nn.Linear(9, 7))
    ))  # fmt: skip
    agree((str(saved(lively(average), "other.pth")), None), average)


def test_another_body_of_fastai_is_named_with_a_function() -> None:
    state = {"0.0.weight": torch.ones(2, 3, 3, 3), "1.2.weight": torch.ones(2, 2)}
    torch.save(state, "best.pth")
    with pytest.raises(CheckpointError, match="fastai's layout") as error:
        load_model("best.pth")
    assert "create_vision_model" in error.value.__notes__[0]
    compile(error.value.__notes__[0], "fastai_network.py", "exec")


def test_a_folder_of_transformers_is_named_with_a_function() -> None:
    folder = Path("vit")
    folder.mkdir()
    torch.save({"vit.encoder.weight": torch.ones(3, 3)}, folder / "pytorch_model.bin")
    config = {"architectures": ["ViTForImageClassification"], "id2label": {"0": "cat"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="Hugging Face model, ViTForImageClassification") as error:
        load_model("vit")
    lines = error.value.__notes__[0]
    assert lines.splitlines()[-1].strip() == (
        "return AutoModelForImageClassification.from_pretrained('vit')"
    )
    compile(lines, "hf_network.py", "exec")
