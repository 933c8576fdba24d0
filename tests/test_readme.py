"""The README's commands run, and its tables say what the code says."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from conftest import SAMPLES, Cli, lively

from camcli.cli.commands.methods import costs
from camcli.core.types import Transform
from camcli.methods.registry import METHODS
from camcli.models.zoo import architectures
from camcli.models.zoo import model_card as trained
from camcli.models.zoo import pretrained as hub
from camcli.models.zoo import replace_head as refit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CONSOLE = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
COMMANDS = re.findall(r"^\$ (.*)$", CONSOLE, re.MULTILINE)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the README takes for granted; weights of the hub are random here."""
    shutil.copytree(SAMPLES, tmp_path / "sample_images")
    for name in ("Egyptian cat", "espresso"):
        (tmp_path / "val" / name).mkdir(parents=True)
    shutil.copy(SAMPLES / "chelsea.jpg", tmp_path / "val" / "Egyptian cat")
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path / "val" / "espresso")
    (tmp_path / "val" / "boxes.csv").write_text(
        "image,class,x1,y1,x2,y2\n"
        "Egyptian cat/chelsea.jpg,Egyptian cat,0,0,385,300\n"
        "espresso/coffee.jpg,espresso,77,18,478,388\n"
    )
    (tmp_path / "birds").mkdir()
    shutil.copy(SAMPLES / "rocket.jpg", tmp_path / "birds")
    (tmp_path / "birds" / "boxes.csv").write_text(
        "image,class_index,x1,y1,x2,y2\nrocket.jpg,3,308,125,338,405\n"
    )
    for name in ("chelsea", "coffee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for copy in range(2):
            shutil.copy(SAMPLES / f"{name}.jpg", tmp_path / "photos" / name / f"{copy}.jpg")
    mine = lively(timm.create_model("resnet18", num_classes=3))
    torch.save({"state_dict": mine.state_dict()}, tmp_path / "mine.pth")
    found = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    torch.save(lively(found).state_dict(), tmp_path / "best.pth")
    (tmp_path / "my_networks.py").write_text(
        "import timm\ndef small():\n    return timm.create_model('resnet10t', num_classes=4)\n"
    )
    (tmp_path / "names.txt").write_text("cup\nsaucer\nspoon\n")
    trunk = lively(timm.create_model("deit_tiny_patch16_224", num_classes=0)).state_dict()
    head = torch.nn.Conv2d(192, 5, 3, padding=1).state_dict()
    state = trunk | {f"head.{key}": value for key, value in head.items()}
    official = {
        "epoch": 1,
        "best_map": 0.5,
        "state_dict": {f"module.{k}": v for k, v in state.items()},
    }
    torch.save(official, tmp_path / "tscam.pth")
    fitted = refit.tscam(lively(timm.create_model("test_vit")), 2, (160, 160), "test_vit")
    card = trained.Card("tscam", "test_vit", ("cat", "cup"), Transform((160, 160)))
    (tmp_path / "tscam-head").mkdir()
    (tmp_path / "tscam-head" / "model_best.safetensors").write_bytes(
        trained.pack(fitted.state_dict(), card)
    )

    def random_weights(name: str, size: tuple[int, int] | None) -> architectures.Built:
        built = architectures.blank(name, size)
        lively(built.network, seed=1)
        return built

    monkeypatch.setattr(hub, "pretrained", random_weights)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(
    command: str, cli: Cli, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _, after = command.partition("camcli ")
    if after.startswith("train"):
        shutil.rmtree(workplace / "tscam-head")  # what it writes is there for the command after it
    if before:  # `find … -print0 |`
        listed = "\0".join(map(str, sorted((workplace / "val").rglob("*.jpg"))))
        monkeypatch.setattr(sys, "stdin", io.StringIO(listed))
    ran = cli(*shlex.split(after.partition(" | ")[0]))
    assert ran.status == 0, ran.err


def test_the_tour_shows_real_output(cli: Cli, workplace: Path) -> None:
    shown = [line for line in CONSOLE.splitlines() if not line.startswith("$")]
    ran = cli("explain", "sample_images", "--format", "table")
    assert [line for line in ran.out.splitlines() if line not in shown] == []
    listed = cli("layers")
    assert [line for line in listed.out.splitlines() if line not in shown] == []


def test_the_table_of_methods_is_the_registry(cli: Cli) -> None:
    table = cli("methods", "--format", "markdown").out
    assert len(table.splitlines()) == len(METHODS) + 2
    assert table in README
    assert costs().keys() == METHODS.keys()
    for row in table.splitlines()[2:]:
        assert all(cell.strip() for cell in row.split("|")[1:-1]), row


def test_the_example_of_a_method_works_as_shown() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    from torch import Tensor

    from camcli.methods.registry import method

    names: dict[str, object] = {"method": method, "Tensor": Tensor}
    try:
        exec(example, names)
        added = METHODS["mycam"]
        ones = torch.ones(1, 2, 3, 3)
        assert added.needs == ("activations", "gradients")
        assert added.function(ones, ones).tolist() == [[[2.0] * 3] * 3]
    finally:
        METHODS.pop("mycam", None)
