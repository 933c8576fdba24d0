"""`--target like:REFERENCE`: what makes an image like another one, by hand and by camcli."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, lively
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.core.errors import MethodError, UsageError
from camcli.models.model import Model

SIZE = (64, 64)
PHOTO, REFERENCE, OTHER = PHOTOS[:3]


def read(path: Path) -> Tensor:
    """The input of the network, by Pillow alone: mean and std are those of ImageNet."""
    with Image.open(path) as photo:
        small = photo.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((values - mean[:, None, None]) / std[:, None, None])[None]


def parts_of(network: Any) -> tuple[Any, Any]:
    """The network up to its last map, and from there to its embedding."""
    return network.forward_features, lambda maps: network.global_pool(maps)


def by_hand(network: Any, references: list[Path]) -> tuple[float, np.ndarray]:
    """The cosine and the Grad-CAM of it: dc/dA from c = e.m / |e| |m|, with m a mean of units."""
    features, pool = parts_of(network)
    with torch.no_grad():
        units = [e / e.norm() for e in (pool(features(read(path)))[0] for path in references)]
    m = torch.stack(units).mean(dim=0)
    maps = features(read(PHOTO)).detach()
    e = pool(maps)[0]
    cosine = (e @ m) / (e.norm() * m.norm())
    # The gradient of a cosine by e; each cell has a share 1/HW of it, because e is a mean.
    slope = m / (e.norm() * m.norm()) - cosine * e / e.norm() ** 2
    weights = slope / (maps.shape[2] * maps.shape[3])
    cam = (weights[:, None, None] * maps[0]).sum(dim=0).relu()
    return float(cosine), cam.numpy()


def network_of(class_count: int) -> Any:
    return lively(timm.create_model("test_resnet", num_classes=class_count)).eval()


@pytest.mark.parametrize("class_count", [0, 7])
def test_the_map_of_a_similarity_is_that_of_the_cosine(class_count: int) -> None:
    network = network_of(class_count)
    before = [id(module) for module in network.modules()]
    model = camcli.wrap(network, size=SIZE)
    (found,) = camcli.explain(model, PHOTO, "gradcam", target=f"like:{REFERENCE}", layers="layer4")
    cosine, cam = by_hand(network, [REFERENCE])
    assert found.score == pytest.approx(cosine, abs=1e-4)
    assert cam.max() > 0
    np.testing.assert_allclose(found.raw, cam, rtol=1e-3, atol=2e-3 * cam.max())
    line = found.to_dict()
    assert (line["class_name"], line["score_kind"]) == (f"like {REFERENCE.stem}", "similarity")
    assert line["targets"] == [f"like:{REFERENCE}"]
    assert [id(module) for module in network.modules()] == before
    assert model.output_kind == ("softmax" if class_count else "embedding")  # it stays as it was


def test_a_folder_is_the_mean_of_its_images(tmp_path: Path) -> None:
    folder = tmp_path / "birds"
    folder.mkdir()
    for path in (REFERENCE, OTHER):
        (folder / path.name).write_bytes(path.read_bytes())
    network = network_of(0)
    model = camcli.wrap(network, size=SIZE)
    (found,) = camcli.explain(model, PHOTO, "gradcam", target=f"like:{folder}", layers="layer4")
    cosine, cam = by_hand(network, sorted([REFERENCE, OTHER]))
    assert found.score == pytest.approx(cosine, abs=1e-4)
    np.testing.assert_allclose(found.raw, cam, rtol=1e-3, atol=2e-3 * cam.max())
    assert found.class_name == "like birds"


def test_several_references_stand_side_by_side() -> None:
    network = network_of(0)
    model = camcli.wrap(network, size=SIZE)
    targets = [f"like:{PHOTO}", f"like:{REFERENCE}", f"like:{PHOTO}"]
    itself, other = camcli.explain(model, PHOTO, "gradcam", target=targets, layers="layer4")
    assert itself.score == pytest.approx(1, abs=1e-5)
    assert other.score == pytest.approx(by_hand(network, [REFERENCE])[0], abs=1e-4)


def test_similarity_of_a_transformer_without_classifier() -> None:
    network: Any = lively(timm.create_model("test_vit", num_classes=0, img_size=SIZE)).eval()
    model = camcli.wrap(network, size=SIZE)
    found = camcli.explain(
        model, PHOTO, ["saliency", "chefer", "rollout"], target=f"like:{REFERENCE}"
    )
    with torch.no_grad():
        e, m = network(read(PHOTO))[0], network(read(REFERENCE))[0]
    for each in found:
        assert each.score == pytest.approx(
            float(nn.functional.cosine_similarity(e, m, 0)), abs=1e-4
        )
        assert each.status == "ok"
    with pytest.raises(MethodError, match="legrad needs"):
        camcli.explain(model, PHOTO, "legrad", target=f"like:{REFERENCE}")


class TwoLayers(nn.Module):
    """Its last linear layer is used twice, so that what it reads is not the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.square = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, 6)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.conv(images).relu().mean(dim=(2, 3))
        found: Tensor = self.square(self.square(pooled).relu()) * 2
        return found


def test_without_an_embedding_similarity_is_refused() -> None:
    model = camcli.wrap(TwoLayers(), size=SIZE)
    with pytest.raises(UsageError, match=r"no last linear layer.*--head embedding"):
        camcli.explain(model, PHOTO, "gradcam", target=f"like:{REFERENCE}")


def test_a_reference_that_is_no_image_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    model: Model = camcli.wrap(network_of(0), size=SIZE)
    with pytest.raises(UsageError, match=r"like:.*broken.png"):
        camcli.explain(model, PHOTO, "gradcam", target=f"like:{broken}")
