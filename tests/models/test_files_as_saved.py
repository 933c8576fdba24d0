"""Files as people save them: under any key and prefix, or with objects that only code can read."""

from __future__ import annotations

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from conftest import lively, noise
from torch import Tensor, nn

from camcli.core.errors import CheckpointError
from camcli.models.model import load_model
from camcli.models.zoo.checkpoints import load_weights

State = dict[str, Tensor]
NAME, SIZE = "test_resnet", (64, 64)
STRAY = torch.ones(7)


def network(classes: int = 7) -> nn.Module:
    return lively(timm.create_model(NAME, num_classes=classes)).eval()


def saved(content: Any, name: str = "best.pth", **options: Any) -> Path:
    torch.save(content, name, **options)
    return Path(name)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def agree(name: str | None, checkpoint: Path | None, expected: nn.Module) -> None:
    model = load_model(name, checkpoint, size=SIZE, device="cpu")
    with torch.no_grad():
        wanted, found = expected(noise(2, SIZE)), model.network(noise(2, SIZE))
    assert torch.allclose(found, wanted, atol=1e-4)


def choose(name: str | None, path: Path) -> tuple[str, Path | None]:
    """The arguments of `load_model`: a name and its file, or the file alone."""
    return (name, path) if name else (str(path), None)


def under(prefix: str) -> Callable[[State], State]:
    return lambda s: {prefix + key: value for key, value in s.items()}


NESTED: dict[str, Callable[[State], Any]] = {
    "net": lambda s: {"net": s, "acc": 93.1, "epoch": 180},
    "net in parallel": lambda s: {"net": under("module.")(s), "acc": 93.1},
    "deeper": lambda s: {"run": {"best": {"params": s}}, "log": {"loss": STRAY}},
    "beside an optimizer": lambda s: {"opt": {"state": {0: {"m": STRAY}}}, "my_weights": s},
    "beside a larger dict": lambda s: {"log": dict.fromkeys(map(str, range(999)), 0.1), "w": s},
}


@pytest.mark.parametrize("name", [NAME, None])
@pytest.mark.parametrize("kind", NESTED)
def test_any_key_is_searched_for_the_largest_table(kind: str, name: str | None) -> None:
    path = saved(NESTED[kind](network().state_dict()))
    agree(*choose(name, path), network())


def test_a_table_that_contains_itself() -> None:
    table: dict[str, Any] = {"a": {"epoch": 1}}
    table["b"] = table
    with pytest.raises(CheckpointError, match="contains no weights"):
        load_weights(saved(table))


PREFIXES = ("net.", "classifier_model.", "student.inner.", "0.", "model.net.")


@pytest.mark.parametrize("name", [NAME, None])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_prefix_is_understood_with_and_without_a_name(prefix: str, name: str | None) -> None:
    state = under(prefix)(network().state_dict()) | {"criterion.weight": STRAY}
    path = saved({"state_dict": state, "hyper_parameters": {"lr": 0.1}})
    agree(*choose(name, path), network())
    assert "ignored: criterion" in load_model(*choose(name, path), size=SIZE).note


def test_the_weights_of_user_code_have_any_prefix() -> None:
    Path("own_net.py").write_text(
        f"import timm\ndef make(): return timm.create_model('{NAME}', num_classes=7)\n"
    )
    agree("own_net:make", saved({"net": under("net.")(network().state_dict())}), network())


OBJECTS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "lightning": (
        lambda n: {"epoch": 1, "state_dict": n.state_dict(), "hyper": {"loss": nn.L1Loss()}},
        "a training checkpoint",
    ),
    "network under a key": (lambda n: {"epoch": 1, "model": n}, "a training checkpoint"),
    "weights under a key": (
        lambda n: {"loss": nn.L1Loss(), "net": OrderedDict(n.state_dict())},
        "a training checkpoint",
    ),
    "network": (lambda n: n, "a whole network"),
}
FORMATS: dict[str, Callable[[Any], Path]] = {
    "zip": saved,
    "old": lambda c: saved(c, _use_new_zipfile_serialization=False),
    "protocol 4": lambda c: saved(c, pickle_protocol=4),
}


@pytest.mark.parametrize("save", FORMATS)
@pytest.mark.parametrize("kind", OBJECTS)
def test_the_lines_of_a_refusal_save_the_weights(kind: str, save: str) -> None:
    make, words = OBJECTS[kind]
    path = FORMATS[save](make(network()))
    with pytest.raises(CheckpointError, match=words) as error:
        load_model(NAME, path)
    exec(error.value.__notes__[0], {})  # as the owner of the file may
    agree(NAME, Path("weights.pth"), network())


@pytest.mark.parametrize("package", ["ultralytics", "fastai"])
def test_networks_of_other_packages_are_given_by_a_function(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = ModuleType(package)
    module.YOLO = module.load_learner = type(
        "Model", (), {"__init__": lambda self, path: setattr(self, "model", network())}
    )
    own = type("Classifier", (nn.Module,), {"__module__": package})
    module.Classifier = own
    for name in (package, f"{package}.learner"):
        monkeypatch.setitem(sys.modules, name, module)
    path = saved({"model": own(), "epoch": 3})
    with pytest.raises(CheckpointError, match=f"of {package}") as error:
        load_model(str(path))
    lines = error.value.__notes__[0]
    name = lines.rpartition("--model ")[2].split()[0]
    Path(f"{name.partition(':')[0]}.py").write_text(lines)
    monkeypatch.delitem(sys.modules, name.partition(":")[0], raising=False)
    agree(name, None, network())


def test_a_plain_pickle_and_a_damaged_file() -> None:
    Path("learner.pkl").write_bytes(pickle.dumps(nn.L1Loss()))
    with pytest.raises(CheckpointError, match="could run code"):
        load_model("learner.pkl")
    path = saved({"state_dict": network().state_dict(), "loss": nn.L1Loss()})
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_model(NAME, path)
