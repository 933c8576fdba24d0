"""Networks from the user's own functions: their settings, precision, prints and gradients."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SAMPLES, Cli, lively, noise
from torch import Tensor, nn
from torchvision.transforms import Compose, Normalize

import camcli
from camcli.core.types import Transform
from camcli.models.model import load_model

PHOTO = SAMPLES / "coffee.jpg"
IMAGENET = (0.485, 0.456, 0.406)
MODULE = """
import torch
print("on standard output"); import sys; print("on standard error", file=sys.stderr)
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.Linear(6, 4)
    def features(self, x): return self.conv(x).relu()
    def forward(self, x): return self.fc(self.features(x).mean(dim=(2, 3)))
class Frozen(Net):
    def forward(self, x):
        with torch.no_grad(): return super().forward(x)
class Detached(Net):
    def forward(self, x): return self.fc(self.features(x).mean(dim=(2, 3)).detach())
def breaks():
    print("loading 50 %\\rloading 100 %"); raise ValueError("no such run")
"""


@pytest.fixture
def home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    Path("own.py").write_text(MODULE)
    return cli


class Net(nn.Module):
    """Four classes, and the attributes that other libraries set."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 4)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(images).relu().mean(dim=(2, 3)))
        return logits


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives a network to camcli as `package.module:function`."""

    def give(network: nn.Module) -> camcli.Model:
        monkeypatch.setitem(sys.modules, "given", SimpleNamespace(make=lambda: network))
        return load_model("given:make", device="cpu")

    return give


def test_what_user_code_prints_is_shown_only_where_it_fails(home: Cli) -> None:
    ran = home("explain", PHOTO, "--model", "own:Net", "--size", "64", "--method", "gradcam")
    assert ran.status == 0
    assert "on standard" not in ran.out + ran.err
    sys.modules.pop("own")
    ran = home("layers", "own:breaks")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines()[1:] == [
        "the code printed:",
        *("on standard output", "on standard error", "loading 50 %", "loading 100 %"),
    ]
    assert "no such run" in ran.err.splitlines()[0]


def test_the_normalisation_is_said_unless_it_is_given(home: Cli) -> None:
    asked = ("explain", PHOTO, "--model", "own:Net", "--size", "64", "--method", "eigencam")
    ran = home(*asked)
    assert "own:Net: images are normalised with mean 0.485,0.456,0.406" in ran.err
    assert "because the network does not say" in ran.err
    ran = home(*asked, "--overwrite", "--mean", "0.5", "--std", "0.5")
    assert "normalised" not in ran.err


NAMES = ("ant", "bee", "cat", "dog")


def test_a_network_of_transformers_with_its_folder(given: Any, tmp_path: Path) -> None:
    settings = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "resample": 3,
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 48, "width": 48},
        "do_center_crop": True,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    config = SimpleNamespace(id2label=dict(enumerate(NAMES)), _name_or_path=str(tmp_path))
    model = given(Net(config=config))
    assert model.transform == Transform((48, 48), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", 0.75)
    assert model.labels.names == NAMES
    assert "preprocessor_config.json" in model.note
    config.image_size, config.id2label = 96, {n: f"LABEL_{n}" for n in range(4)}
    plain = {**settings, "do_normalize": False, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(plain))
    model = given(Net(config=config))
    assert (model.input_size, model.transform.mean, model.transform.std) == (
        (96, 96),
        (0.0,) * 3,
        (1.0,) * 3,
    )
    assert model.labels.names[0] == "class 0"  # not LABEL_0


def test_a_network_of_ultralytics(given: Any) -> None:
    steps = Compose([Normalize(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6]))])
    model = given(Net(names=dict(enumerate(NAMES)), transforms=steps))
    assert model.labels.names == NAMES
    assert model.transform.mean == pytest.approx((0.1, 0.2, 0.3))
    assert model.transform.std == pytest.approx((0.4, 0.5, 0.6))
    own = type("ClassificationModel", (Net,), {"__module__": "ultralytics.nn.tasks"})
    assert given(own()).transform.mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"config": SimpleNamespace(_name_or_path="no/such/folder", id2label={"x": 1})},
        {"config": SimpleNamespace(_name_or_path=3, image_size=-1)},
        {"config": {"image_size": [10**9, 3], "id2label": 5}},
        {"transforms": SimpleNamespace(transforms=[SimpleNamespace(mean="a", std=2)])},
        {"names": lambda: 3, "pretrained_cfg": 4},
    ],
)
def test_settings_without_sense_are_passed_over(given: Any, attributes: dict[str, Any]) -> None:
    model = given(Net(**attributes))
    assert (model.input_size, model.transform.mean) == ((224, 224), IMAGENET)
    assert model.labels.names[0] == "class 0"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_read_as_float32(given: Any, dtype: torch.dtype) -> None:
    network = lively(Net()).to(dtype)
    expected = lively(Net()).to(dtype).float()
    inputs = noise(2, (64, 64))
    for model in (camcli.wrap(network, size=64), given(network)):
        with torch.no_grad():
            assert torch.allclose(model.network(inputs), expected(inputs), atol=1e-5)


def test_wrapping_leaves_the_precision_of_the_callers_network() -> None:
    network: Any = lively(Net()).half()
    before = network.conv.weight
    camcli.wrap(network, size=64)
    assert network.conv.weight is before
    assert before.dtype == torch.float16
    assert before.requires_grad


def test_a_network_in_a_users_module_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network: Any = lively(Net()).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    monkeypatch.setitem(sys.modules, "given", SimpleNamespace(network=network))
    torch.save(lively(Net(), seed=3).state_dict(), tmp_path / "other.pth")
    model = camcli.load("given:network", checkpoint=tmp_path / "other.pth", size=64)
    expected = lively(Net(), seed=3).state_dict()["fc.bias"]
    assert torch.equal(model.network.state_dict()["fc.bias"], expected)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["Frozen", "Detached"])
def test_a_network_without_gradients_has_other_methods(home: Cli, name: str) -> None:
    asked = ("explain", PHOTO, "--model", f"own:{name}", "--size", "64", "--overwrite")
    ran = home(*asked, "--method", "gradcam")
    assert ran.status == 2
    for words in ("no_grad", "detaches", "eigencam", "--layers conv", "occlusion"):
        assert words in ran.err
    ran = home(*asked, "--method", "gradcam", "--layers", "conv")
    assert ran.status == 1
    assert "computes without gradients" in ran.err
    ran = home(*asked, "--method", "eigencam,scorecam,ablationcam", "--layers", "conv")
    assert ran.status == 0, ran.err
    assert home(*asked, "--method", "occlusion", "--set", "window=32").status == 0
