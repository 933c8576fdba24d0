"""Options that meet: each is tested by itself elsewhere."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, Cli, lively
from torch import Tensor, nn

import camcli

NETWORKS = """
import timm, torch
from conftest import lively

def five():
    network = lively(timm.create_model("test_resnet", num_classes=5))
    network.get_classifier().weight.data *= 0.02  # no probability is 1
    return network

def bare():
    return lively(timm.create_model("test_resnet", num_classes=0))
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the user's own module, and two photographs, in the working directory."""
    (tmp_path / "meeting_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "meeting_networks", raising=False)
    (tmp_path / "in").mkdir()
    for path in PHOTOS[:2]:
        shutil.copy(path, tmp_path / "in")


def network_options(name: str) -> list[str]:
    return ["--model", f"meeting_networks:{name}", "--size", "64"]


@pytest.mark.usefixtures("networks")
def test_a_comparison_starts_with_a_model_that_is_left_out(cli: Cli) -> None:
    models = "meeting_networks:bare,meeting_networks:five"
    ran = cli("compare", "in", "--models", models, "--size", "64", "-m", "gradcam", "-o", "o")
    assert ran.status == 1
    assert "left out: gradcam explains a class" in ran.err
    for line in ran.lines:
        (shown,) = line["maps"]
        assert line["file"].endswith(f".class-{shown['class_index']}.compare.jpg")


@pytest.mark.usefixtures("networks")
def test_images_without_a_class_are_one_kind_of_failure(cli: Cli) -> None:
    ran = cli("explain", "in", *network_options("five"), "-t", "above:1.0", "-o", "o")
    assert ran.status == 1
    first, more = (line["error"] for line in ran.lines)
    assert first.startswith("no class reaches the probability of --target above:1.0; the highest")
    assert more != first  # each has its own highest class
    reason = "no class reaches the probability of --target above:1.0"
    assert f"camcli: 1 more image: {reason} (in/{PHOTOS[1].name})" in ran.err
    assert f"2 failed (2: {reason})" in ran.err


@pytest.mark.usefixtures("networks")
def test_a_run_of_0_1_0_resumes_unless_it_has_pictures(cli: Cli) -> None:
    for kinds, resumes in (("array,boxes", True), ("array,overlay", False)):
        run = ["explain", "in", *network_options("five"), "--save", kinds, "-o", kinds]
        assert cli(*run).status == 0
        settings = json.loads(Path(kinds, "run.json").read_text())["settings"]
        look = {k: settings.get(k) for k in ("colormap", "alpha")}
        assert (look == {"colormap": "jet", "alpha": 0.5}) == resumes
        new = {"logits", "rgb", "caption", "scale", "blend", "contour", "box_color", "clip", "cell"}
        assert bool(new & settings.keys()) != resumes
        again = cli(*run, "--colormap", "viridis", "--resume")
        assert again.status == (0 if resumes else 2)


@pytest.mark.parametrize("channel_count", [1, 5])
def test_a_reference_has_the_channels_of_the_network(channel_count: int, tmp_path: Path) -> None:
    network: Any = lively(
        timm.create_model("test_resnet", num_classes=0, in_chans=channel_count)
    ).eval()
    generator = np.random.default_rng(0)
    image, other = generator.random((2, 64, 64, channel_count), np.float32)
    np.save(tmp_path / "other.npy", other)
    model = camcli.wrap(network, size=64, mean=(0,) * channel_count, std=(1,) * channel_count)
    (found,) = camcli.explain(model, image, "gradcam", target=f"like:{tmp_path / 'other.npy'}")
    with torch.no_grad():
        own, reference = network(torch.from_numpy(np.stack([image, other]).transpose(0, 3, 1, 2)))
    cosine = torch.nn.functional.cosine_similarity(own, reference, dim=0)
    assert found.score == pytest.approx(float(cosine), abs=1e-4)


class Several(nn.Module):
    """Returns an embedding beside two kinds of logits."""

    def __init__(self) -> None:
        super().__init__()
        body: Any = lively(timm.create_model("test_resnet", num_classes=0))
        self.body, self.age = body, nn.Linear(body.num_features, 3)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        embedding: Tensor = self.body(images)
        return {"age": self.age(embedding), "embedding": embedding}


def test_the_embedding_may_be_one_of_several_outputs() -> None:
    network = Several().eval()
    model = camcli.wrap(network, size=64, logits="embedding", head="embedding")
    bare = camcli.wrap(network.body, size=64)
    found, expected = (
        camcli.explain(m, PHOTOS[0], "gradcam", target=f"like:{PHOTOS[1]}", layers="last")[0]
        for m in (model, bare)
    )
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    np.testing.assert_allclose(found.raw, expected.raw, atol=1e-4 * np.abs(expected.raw).max())
