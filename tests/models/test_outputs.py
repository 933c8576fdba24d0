"""Networks that return several tensors, or want more than images: the logits are the right ones."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SAMPLES, Cli, lively, noise
from torch import Tensor, nn

import camcli
from camcli.core.errors import ModelError

PHOTO = SAMPLES / "coffee.jpg"
NAMES = [f"kind {n}" for n in range(4)]
Parts = namedtuple("Parts", "embedding scores")


@dataclass(slots=True)
class Answer:
    """An output like those of other libraries."""

    embedding: Tensor
    scores: Tensor


class Net(nn.Module):
    """Features (B,6), four classes (B,4) and one number (B,1); `answer` chooses what it returns."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.fc, self.age = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 4), nn.Linear(6, 1)
        self.answer = answer

    def scores(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.conv(images).relu().mean(dim=(2, 3))
        return features, self.fc(features), self.age(features)

    def forward(self, images: Tensor) -> Any:
        return self.answer(*self.scores(images))


SEVERAL: dict[str, tuple[Callable[..., Any], str]] = {
    "tuple": (lambda f, z, a: (f, z), "1"),
    "list": (lambda f, z, a: [f, z, a[:, 0]], "1"),
    "named tuple": (lambda f, z, a: Parts(f, z), "scores"),
    "dataclass": (lambda f, z, a: Answer(f, z), "scores"),
    "dict": (lambda f, z, a: {"emb": f, "age": a, "breed": z}, "breed"),
    "dict in a tuple": (lambda f, z, a: (f, {"age": a, "breed": z}), "1.breed"),
}


def agree(model: Any, network: Any) -> bool:
    inputs = noise(2, model.input_size)
    return torch.allclose(model.network(inputs), network.scores(inputs)[1], atol=1e-6)


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_tensors_are_told_by_the_labels_or_by_name(kind: str) -> None:
    answer, name = SEVERAL[kind]
    network: Any = lively(Net(answer))
    with pytest.raises(ModelError, match=r"\(B,6\).*\(B,4\).*--logits NAME.*--labels"):
        camcli.wrap(network, size=32)
    told = camcli.wrap(network, size=32, labels=NAMES)
    assert f"`{name}`" in told.note
    named = camcli.wrap(network, size=32, logits=int(name) if name.isdigit() else name)
    for model in (told, named):
        assert agree(model, network)
        assert len(model.labels.names) == 4
    first = "0" if name[0].isdigit() else next(iter(("embedding", "emb")[kind == "dict" :]))
    features = camcli.wrap(network, size=32, logits=first)
    assert torch.allclose(
        features.network(noise(2, (32, 32))), network.scores(noise(2, (32, 32)))[0]
    )
    with pytest.raises(ModelError, match=r"no 'nothing'.*\(B,4\)"):
        camcli.wrap(network, size=32, logits="nothing")


def test_labels_of_another_count_choose_nothing() -> None:
    with pytest.raises(ModelError, match="several tensors"):
        camcli.wrap(Net(SEVERAL["tuple"][0]), size=32, labels=["a", "b", "c"])


PROBABILITIES: dict[str, Callable[..., Any]] = {
    "softmax": lambda f, z, a: (z.softmax(1), z),  # as ultralytics' classifiers answer
    "softmax last": lambda f, z, a: (z, z.softmax(1)),
    "sigmoid": lambda f, z, a: {"probabilities": z.sigmoid(), "scores": z},
    "log": lambda f, z, a: [z.log_softmax(1), z],
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_beside_their_logits(kind: str) -> None:
    network: Any = lively(Net(PROBABILITIES[kind]))
    model = camcli.wrap(network, size=32)
    assert agree(model, network)
    (found,) = camcli.explain(model, torch.rand(3, 32, 32))
    scores = network.scores(torch.as_tensor(found.result.sample.inputs))[1].detach()
    assert found.score == pytest.approx(float(scores.softmax(1).max()), abs=1e-5)


MODULE = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = torch.nn.Conv2d(3, 6, 3, 2, 1), torch.nn.Linear(6, 4)
    def features(self, x): return self.conv(x).relu().mean(dim=(2, 3))
    def forward(self, x): return self.features(x), self.fc(self.features(x))
class Two(Net):
    def forward(self, x, meta, *, scale): return self.fc(self.features(x)) + meta * scale
class Dict(Net):
    def forward(self, x): return self.fc(self.features(x.image))
"""


@pytest.fixture
def home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in ("own", "one_input"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("own.py").write_text(MODULE)
    return cli


def test_the_option_chooses_the_logits(home: Cli) -> None:
    asked = ("explain", PHOTO, "--model", "own:Net", "--size", "64", "--method", "gradcam")
    ran = home(*asked)
    assert (ran.status, ran.out) == (2, "")
    assert "0 (B,6), 1 (B,4)" in ran.err
    Path("names.txt").write_text("\n".join(NAMES))
    for more in (("--logits", "1"), ("--labels", "names.txt", "--overwrite")):
        ran = home(*asked, *more)
        assert ran.status == 0, ran.err
        assert ran.lines[0]["explanations"][0]["class_index"] < 4
    assert home("layers", "own:Net", "--size", "64", "--logits", "0").status == 0


def test_further_inputs_are_named_with_the_lines_that_give_them(home: Cli) -> None:
    ran = home("layers", "own:Two", "--size", "64")
    said, _, lines = ran.err.partition("\n")
    assert ran.status == 2
    for words in ("needs meta and scale besides images", "network(images)", "(B,3,64,64)"):
        assert words in said
    Path("one_input.py").write_text(lines.replace("meta=...", "meta=1").replace("...", "2"))
    wrapped = camcli.load("one_input:OneInput", size=64)
    images = noise(2, (64, 64))
    inner: Any = wrapped.network.inner
    expected = inner.fc(inner.features(images)) + 2
    assert torch.allclose(wrapped.network(images), expected)
    ran = home("layers", "own:Dict", "--size", "64")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "camcli calls network(images)" in ran.err
