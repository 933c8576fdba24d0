"""Model libraries: what each one must do, and one that is defined here alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SAMPLES, Cli, lively, noise
from torch import nn

from camcli.core.errors import ModelError
from camcli.core.types import Transform
from camcli.models.model import load_model
from camcli.models.zoo.architectures import create_network
from camcli.models.zoo.libraries import (
    LIBRARIES,
    find_library,
    list_model_names,
    register_library,
    unregister_library,
)
from camcli.models.zoo.library import Library, Size

PHOTO = SAMPLES / "coffee.jpg"
MEAN = (0.1, 0.2, 0.3)
BY_NAME = ("test_resnet", "test_vit", "torchvision:squeezenet1_1", "tf_efficientnet_lite0")


class ToyLibrary(Library):
    """One small CNN, whose weights lie in a folder."""

    prefixes: tuple[str, ...] = ("toy:",)

    def __init__(self, folder: Path) -> None:
        self.file = folder / "toy.pth"

    def list_names(self) -> Sequence[str]:
        return ["toy:net"]

    def create(self, name: str, size: Size | None, **options: Any) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, options.get("num_classes", 4))),
        )

    def create_pretrained(self, name: str, size: Size | None) -> nn.Module:
        network = self.create(name, size)
        network.load_state_dict(torch.load(self.file))
        return network

    def find_transform(
        self, name: str, size: Size | None, network: nn.Module | None = None
    ) -> Transform:
        return Transform(size or (48, 48), MEAN)

    def find_weights_url(self, name: str) -> str:
        return "https://toys.invalid/net"

    def find_class_names(self, name: str, network: nn.Module) -> tuple[str, ...] | None:
        return ("ball", "car", "doll", "kite")

    def is_cached(self, name: str) -> bool:
        return self.file.exists()


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyLibrary]:
    monkeypatch.setattr("camcli.models.zoo.library.is_reachable", lambda _address: False)
    library = ToyLibrary(tmp_path)
    register_library(library)
    yield library
    unregister_library(library)


def test_a_library_needs_one_class(cli: Cli, toy: ToyLibrary) -> None:
    assert cli("models", "toy").out == "toy:net\n"
    assert cli("models", "toy", "--loadable").out == ""
    without = cli("explain", PHOTO, "--model", "toy:net")
    assert (without.status, without.out) == (2, "")
    for words in ("toy:net", "toys.invalid cannot be reached", "--checkpoint FILE"):
        assert words in without.err
    known = lively(toy.create("toy:net", None)).eval()
    torch.save(known.state_dict(), toy.file)
    assert cli("models", "toy", "--loadable").out == "toy:net\ntoy.pth  (a file here)\n"
    ran = cli("explain", PHOTO, "--model", "toy:net", "--method", "gradcam")
    assert ran.status == 0, ran.err
    assert ran.lines[0]["explanations"][0]["class_name"] in ("ball", "car", "doll", "kite")
    model = load_model("toy:net")
    assert (model.name, model.transform) == ("toy:net", Transform((48, 48), MEAN))
    assert torch.allclose(model.network(noise(2, (48, 48))), known(noise(2, (48, 48))), atol=1e-5)


def test_its_architecture_takes_a_users_weights(cli: Cli, toy: ToyLibrary) -> None:
    known = lively(toy.create("toy:net", None, num_classes=3)).eval()
    torch.save({"state_dict": known.state_dict(), "classes": ["a", "b", "c"]}, "mine.pth")
    model = load_model("toy:net", Path("mine.pth"), size=(64, 64))
    assert (model.labels.names, model.input_size) == (("a", "b", "c"), (64, 64))
    assert torch.allclose(model.network(noise(2, (64, 64))), known(noise(2, (64, 64))), atol=1e-5)
    ran = cli("explain", PHOTO, "--model", "toy:net", "--checkpoint", "mine.pth")
    assert (ran.status, len(ran.lines)) == (0, 1), ran.err
    assert cli("layers", "toy:net", "--no-weights").status == 0
    assert "did you mean toy:net" in cli("layers", "toy:nett").err
    assert "did you mean toy:net" in cli("layers", "toy:nett", "--checkpoint", "mine.pth").err


def test_without_it_the_prefix_is_a_module(cli: Cli) -> None:
    assert "toy cannot be imported" in cli("layers", "toy:net").err


def test_a_library_has_prefixes_of_its_own(tmp_path: Path) -> None:
    taken = ToyLibrary(tmp_path)
    for prefix in ("torchvision:", "hf_hub:"):
        taken.prefixes = (prefix,)
        with pytest.raises(ValueError, match="prefixes of its own"):
            register_library(taken)
    assert taken not in LIBRARIES


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: type(library).__name__)
def test_each_library_owns_the_names_that_it_lists(library: Library) -> None:
    for name in library.list_names():
        assert library.has_name(name)
        owners = [each for each in LIBRARIES if each.owns(name)]
        assert find_library(name) is owners[0]
        assert library in owners
    names = list_model_names()
    assert len(names) == len({*names})


@pytest.mark.parametrize("name", BY_NAME)
def test_the_transform_is_known_without_the_network(name: str) -> None:
    library = find_library(name)
    network = create_network(name, None)
    assert library.find_transform(name, None) == library.find_transform(name, None, network)


def test_a_name_of_no_library_is_refused() -> None:
    with pytest.raises(ModelError, match="'other:net'"):
        find_library("other:net")
