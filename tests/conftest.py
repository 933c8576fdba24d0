"""Shared by the tests: sample photographs, small networks, and camcli run in this process."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from camcli.cli.app import main
from camcli.core.types import Transform
from camcli.models import model as models
from camcli.models.model import Model

SAMPLES = Path(__file__).parent.parent / "sample_images"
PHOTOS = sorted(SAMPLES.glob("*.jpg"))

torch.set_num_threads(1)  # the tests themselves run in parallel


@pytest.fixture(autouse=True)
def same_numbers_in_every_run() -> None:
    """Networks and inputs drawn by a test are the same in each run of the suite."""
    torch.manual_seed(0)


@dataclass(frozen=True)
class Ran:
    """The exit status and the output of a command."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output read as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Runs camcli with the given arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["camcli", *map(str, arguments)])
        capsys.readouterr()
        status = main()
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


def heed_interrupts() -> None:
    """Lets a new process take interrupts: those of a suite in the background ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights that make every layer count: no scale or head starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim < 2:
            parameter.data.normal_(1.0, 0.2, generator=generator)
        else:
            fan = parameter[0].numel()
            parameter.data.normal_(0, (2 / fan) ** 0.5, generator=generator)
    return network


@cache
def small(name: str, height: int = 96, width: int = 96, **options: Any) -> Model:
    """A timm network with seeded random weights."""
    fixed = timm.get_pretrained_cfg(name).fixed_input_size  # type: ignore[union-attr]
    sized: dict[str, Any] = {"img_size": (height, width)} if fixed else {}
    network = lively(timm.create_model(name, num_classes=10, **sized, **options))
    return models.wrap_network(name, network, Transform((height, width)))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """The path of a small photograph, 120 x 80."""
    path = tmp_path / "photo.png"
    with Image.open(SAMPLES / "chelsea.jpg") as photo:
        photo.resize((120, 80)).save(path)
    return path


def noise(batch: int, size: tuple[int, int], seed: int = 1) -> torch.Tensor:
    """Random inputs (batch, 3, height, width)."""
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def gradient_image(width: int, height: int) -> Image.Image:
    """An image whose colours give positions: red grows to the right, green downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table that `test_zoo` recorded: the methods that work on each module of timm."""
    passed = terminalreporter.stats.get("passed", [])
    rows = sorted(
        value for report in passed for name, value in report.user_properties if name == "zoo"
    )
    if rows:
        terminalreporter.section("the zoo: a map, or why there is none")
        for row in [["module", "gradcam", "layercam", "rollout", "tscam"], *rows]:
            module, gradcam, layercam, rollout, tscam = row
            line = f"{module:26}{gradcam:9}{layercam:10}{rollout:70}{tscam}"
            terminalreporter.write_line(line.rstrip())
