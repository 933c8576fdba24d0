"""Networks of another number of channels than three: from weights, names, code and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import Cli, gradient_image, lively
from small_networks import hooks
from torch import Tensor, nn

import camcli
from camcli.core.errors import CheckpointError, ModelError, UsageError
from camcli.core.types import Transform
from camcli.models.introspection.probe import create_probe_image, find_channel_count
from camcli.models.model import Model, load_model, wrap_network
from camcli.models.zoo.recognition import find_architecture

IMAGENET = Transform((1, 1))
# A stem of one convolution, of a patch embedding, of two convolutions, in a Sequential, deep.
NAMES = (
    *("mobilenetv3_small_050", "vit_tiny_patch16_224", "repvgg_a0", "convnext_atto", "fastvit_t8"),
    *("crossvit_tiny_240", "torchvision:convnext_tiny", "torchvision:squeezenet1_1"),
)


class BandMeans(nn.Module):
    """Logit k is the mean of band k."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bands = nn.Conv2d(channels, channels, 1, bias=False)
        self.bands.weight.data = torch.eye(channels)[:, :, None, None]

    def forward(self, images: Tensor) -> Any:
        return self.bands(images).mean(dim=(2, 3))


class Late(nn.Module):
    """Declares its last convolution first."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Conv2d(6, 4, 3), nn.Conv2d(2, 6, 3)

    def forward(self, images: Tensor) -> Any:
        return self.last(self.first(images).relu()).mean(dim=(2, 3))


class Adapted(nn.Module):
    """Makes three channels of one for a network that it declares first."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.adapter = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 3, 1)

    def forward(self, images: Tensor) -> Any:
        return self.trunk(self.adapter(images)).mean(dim=(2, 3))


class Linear(nn.Module):
    """Has no convolution: its first layer reads all pixels of two bands, or one patch of five."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(inputs, 8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Any:
        return self.norm(self.first(images.flatten(1)).relu())


class AnyNumber(nn.Module):
    """Takes any number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.grey = nn.Conv2d(1, 4, 3)

    def forward(self, images: Tensor) -> Any:
        return self.grey(images.mean(dim=1, keepdim=True)).mean(dim=(2, 3))


def five_bands(rows: int = 20, cols: int = 30) -> Any:
    return np.random.default_rng(3).integers(0, 256, (rows, cols, 5), np.uint8)


@pytest.mark.parametrize(
    ("network", "count"),
    [(BandMeans(n), n) for n in (1, 2, 3, 4, 5, 13)]
    + [
        (Late(), 2),
        (Adapted(), 1),
        (Linear(2 * 64), 2),
        (Linear(5 * 64), 5),
        (Linear(3 * 64), 3),
        (AnyNumber(), 3),
    ]
    + [(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Flatten()), 4)],
)
def test_the_first_convolution_that_meets_the_input_counts(network: nn.Module, count: int) -> None:
    assert find_channel_count(network, (8, 8)) == count
    assert create_probe_image(network, (8, 8)).shape == (1, count, 8, 8)


def test_a_network_that_runs_on_no_input_says_so_for_three_channels() -> None:
    with pytest.raises(ModelError, match="does not run on a 8x8 input"):
        wrap_network("x", nn.Sequential(nn.Conv2d(2, 4, 9)), Transform((8, 8)))


@pytest.mark.parametrize("count", [1, 5])
def test_the_network_stays_as_it_was(count: int) -> None:
    network = BandMeans(count).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    model = camcli.wrap(network, size=8, head="regression")
    camcli.explain(model, np.zeros((9, 9, count), np.uint8), "saliency")
    assert network.training
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not list(hooks(network))
    assert vars(network).keys() == vars(BandMeans(count)).keys()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_mean_and_std_are_the_average_of_the_three() -> None:
    grey, five = (camcli.wrap(BandMeans(n), size=8).transform for n in (1, 5))
    assert grey.mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    assert grey.std == pytest.approx(((0.229 + 0.224 + 0.225) / 3,))
    assert (five.mean, five.std) == (grey.mean * 5, grey.std * 5)
    assert camcli.wrap(BandMeans(3), size=8).transform == Transform((8, 8))


def test_mean_and_std_of_the_users_own() -> None:
    transform = camcli.wrap(BandMeans(2), size=8, mean=(0.1, 0.2), std=(0.3,)).transform
    assert (transform.mean, transform.std) == ((0.1, 0.2), (0.3, 0.3))
    with pytest.raises(UsageError, match="mean has 3 numbers, but the network takes 2 channels"):
        camcli.wrap(BandMeans(2), size=8, mean=(0.1, 0.2, 0.3))


def test_a_network_of_band_means_gets_exactly_the_mean_of_each_band() -> None:
    image = five_bands()
    model = camcli.wrap(BandMeans(5), size=image.shape[:2], mean=(0,), std=(1,))
    means = image.reshape(-1, 5).mean(axis=0) / 255
    expected = np.exp(means) / np.exp(means).sum()
    for values in (image, image.transpose(2, 0, 1), torch.from_numpy(image.transpose(2, 0, 1))):
        for band in range(5):
            (found,) = camcli.explain(model, values, "cam", target=band)
            assert found.score == pytest.approx(expected[band], abs=1e-6)
            low, high = image[..., band].min(), image[..., band].max()
            stretched = (image[..., band].astype(np.float32) - low) / (high - low)
            np.testing.assert_allclose(found.heatmap, stretched, atol=1e-5)


def test_images_of_any_kind_in_one_call(tmp_path: Path) -> None:
    model = camcli.wrap(BandMeans(1), size=(20, 30), mean=(0,), std=(1,), head="regression")
    picture = gradient_image(30, 20)
    picture.save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", np.asarray(picture))
    many: list[Any] = [str(tmp_path / "a.png"), tmp_path / "a.npy", picture, np.asarray(picture)]
    found = list(camcli.explain(model, many, "saliency"))
    assert len({each.score for each in found}) == 1
    with pytest.raises(camcli.ImageError, match="not an image"):
        camcli.explain(model, 3, "saliency")  # type: ignore[arg-type]


def test_the_library_shows_chosen_bands() -> None:
    model, image = camcli.wrap(BandMeans(5), size=8), five_bands()
    (found,) = camcli.explain(model, image, "cam", rgb=(5, 4, 3))
    assert np.array_equal(np.asarray(found.image), image[..., [4, 3, 2]])
    assert np.array_equal(np.asarray(camcli.explain(model, image, "cam")[0].image), image[..., :3])
    with pytest.raises(UsageError, match="no band 6; the network takes 5 channels"):
        camcli.explain(model, image, "cam", rgb=(6, 1, 1))
    with pytest.raises(UsageError, match="three bands"):
        camcli.explain(model, image, "cam", rgb=(0,))


def create(name: str, channels: int) -> nn.Module:
    if not name.startswith("torchvision:"):
        return lively(timm.create_model(name, in_chans=channels, num_classes=7))
    network = torchvision.models.get_model(name.partition(":")[2], weights=None, num_classes=7)
    stem = network.features[0] if "squeeze" in name else network.features[0][0]
    new = nn.Conv2d(channels, stem.out_channels, stem.kernel_size, stem.stride, stem.padding)
    network.set_submodule("features.0" if "squeeze" in name else "features.0.0", new)
    return lively(network)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 5])
def test_bare_weights_are_recognised(name: str, channels: int) -> None:
    with torch.device("meta"):
        state = create(name, channels).state_dict()
    for prefix in ("", "module.model."):
        found = find_architecture({prefix + k: tuple(v.shape) for k, v in state.items()}, (name,))
        assert found is not None
        assert (found.name, found.prefix, found.class_count) == (name, prefix, 7)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("mobilenetv3_small_050", None),
        ("mobilenetv3_small_050", "mobilenetv3_small_050"),
        ("torchvision:squeezenet1_1", None),
        ("torchvision:squeezenet1_1", "torchvision:squeezenet1_1"),
    ],
)
@pytest.mark.parametrize("channels", [1, 4])
def test_a_file_gives_the_same_logits_as_its_network(
    tmp_path: Path, name: str, given: str | None, channels: int
) -> None:
    network = create(name, channels).eval()
    torch.save({"state_dict": network.state_dict()}, tmp_path / "best.pth")
    path = tmp_path / "best.pth"
    model = load_model(given or str(path), path if given else None, size=(64, 64))
    assert model.transform.channel_count == channels
    assert f"takes {channels} channel" in model.note
    inputs = torch.randn(2, channels, 64, 64)
    with torch.no_grad():
        given_logits, expected = model.network(inputs), network(inputs)
    assert torch.allclose(given_logits, expected, atol=1e-5 * float(expected.abs().max()))


def test_weights_of_a_stem_that_differs_in_more_are_refused(tmp_path: Path) -> None:
    state = create("mobilenetv3_small_050", 5).state_dict()
    state["conv_stem.weight"] = torch.zeros(16, 5, 5, 5)
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=r"conv_stem.weight 16x5x5x5, not 16x3x3x3"):
        load_model("mobilenetv3_small_050", tmp_path / "best.pth")


def test_a_hostile_stem_does_not_ask_for_memory(tmp_path: Path) -> None:
    state = create("mobilenetv3_small_050", 3).state_dict()
    state["conv_stem.weight"] = torch.zeros(16, 100_000, 3, 3)
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match="not 16x3x3x3"):
        load_model("mobilenetv3_small_050", tmp_path / "best.pth")


def test_programs_are_tried_with_the_channels_of_their_weights(tmp_path: Path) -> None:
    network = BandMeans(5).eval()
    images = torch.rand(1, 5, 16, 16)
    traced: Any = torch.jit.script
    with pytest.warns(FutureWarning):
        traced(network).save(str(tmp_path / "a.pt"))
    torch.export.save(torch.export.export(network, (images,)), tmp_path / "a.pt2")
    for name in ("a.pt", "a.pt2"):
        model = load_model(f"program:{tmp_path / name}", size=(16, 16))
        assert model.transform.channel_count == 5
        assert torch.allclose(model.network(images), network(images))


SOURCE = """
import torch
from torch import nn
def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )
"""


def test_explain_reads_bands_and_says_what_does_not_fit(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "two_channel_network.py").write_text(SOURCE)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", five_bands()[..., :2])
    np.save(tmp_path / "in" / "b.npy", five_bands()[..., :3])
    model = ("--model", "two_channel_network:build", "--size", "32")
    ran = cli("explain", "in", *model, "--output", "o", "--rgb", "2", "--mean", "0.1,0.2")
    assert ran.status == 1
    good, bad = ran.lines
    assert (good["image"], good["width"], good["height"]) == ("a.npy", 30, 20)
    assert bad["error"].startswith("has 3 bands, the network takes 2")
    assert "2 channels" in ran.err
    np.save(tmp_path / "in" / "b.npy", five_bands()[..., 3:])
    again = cli(
        "explain", "in", *model, "--output", "o", "--rgb", "2", "--mean", "0.1,0.2", "--resume"
    )
    assert [line["image"] for line in again.lines] == ["b.npy"]
    assert again.status == 0
    np.save(tmp_path / "in" / "a.npy", five_bands()[..., 1:3])  # the stamp of a file changes
    changed = cli(
        "explain", "in", *model, "--output", "o", "--rgb", "2", "--mean", "0.1,0.2", "--resume"
    )
    assert [line["image"] for line in changed.lines] == ["a.npy"]
    refused = cli("explain", "in", *model, "--output", "p", "--rgb", "3")
    assert refused.status == 2
    assert "there is no band 3; the network takes 2 channels" in refused.err
    refused = cli("explain", "in", *model, "--output", "p", "--std", "1,1,1")
    assert refused.status == 2
    assert "std has 3 numbers, but the network takes 2 channels" in refused.err


@pytest.mark.parametrize("text", ["0", "1,2", "1,2,3,4", "a", "", "1,,2", "-1"])
def test_bands_that_cannot_be_shown(cli: Cli, picture: Path, text: str) -> None:
    ran = cli("explain", picture, f"--rgb={text}")
    assert ran.status == 2
    assert f"--rgb {text}: write three bands" in ran.err


@pytest.mark.parametrize("fit", ["squash", "crop", "pad", "tencrop"])
def test_every_fit_works_for_bands(fit: Any) -> None:
    model: Model = camcli.wrap(BandMeans(5), size=(16, 16), mean=(0,), std=(1,))
    (found,) = camcli.explain(model, five_bands(40, 80), "cam", fit=fit, target=3)
    assert found.heatmap.shape == (40, 80)
    assert found.image.size == (80, 40)


def test_only_the_mean_that_is_used_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import torch\ndef grey(): return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), "
    code += "torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 5))\n"
    (tmp_path / "grey_network.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    note = load_model("grey_network:grey").note
    # (0.485 + 0.456 + 0.406) / 3 = 0.449 and (0.229 + 0.224 + 0.225) / 3 = 0.226
    assert "(now 0.449, 0.226)" in note
    assert "0.485" not in note
