"""Faithfulness beside peers, where they are right: the same map and fill, the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import road
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from test_faithfulness import prepare_image
from torch import Tensor, nn
from torchcam.metrics import DeletionInsertionMetric

from camcli.evaluation.faithfulness.faithfulness_metrics import compute_shares, parse_metrics
from camcli.evaluation.faithfulness.masked_passes import PassPlan
from camcli.evaluation.faithfulness.metric_values import (
    compute_area,
    compute_insertion,
    compute_road,
)
from camcli.evaluation.faithfulness.pass_runner import PassRunner
from camcli.evaluation.faithfulness.scored_image import PreparedImage

SIDE = 20  # 400 pixels: both libraries remove the same pixels at each of 10 or 20 steps


class StoredMap:
    """What torch-cam asks of a CAM extractor, for a map that is already there."""

    def __init__(self, network: nn.Module, values: Tensor) -> None:
        self.model, self.values = network, values

    @contextmanager
    def _hooks_off(self) -> Iterator[None]:
        yield

    def __call__(self, *_arguments: Any, **_options: Any) -> list[Tensor]:
        return [self.values[None]]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1))
    with torch.no_grad():
        layers[2].weight *= 40  # so that confidences differ
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.fixture
def image() -> PreparedImage:
    """An image with a map without ties and in [0,1], and no noise in the linear fill."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(3, SIDE, SIDE, generator=generator)
    pixels[:, 4:12, 5:15] += 2  # an object
    ranks = pixels.sum(dim=0).flatten().argsort().argsort().reshape(SIDE, SIDE)
    values = ranks / (SIDE**2 - 1)
    prepared = prepare_image(pixels, [values])
    prepared.fills.noise.zero_()
    return prepared


def score(network: nn.Module, image: PreparedImage, metrics: str, steps: int) -> Any:
    model: Any = SimpleNamespace(
        network=network,
        device=torch.device("cpu"),
        to_probabilities=lambda logits: logits.softmax(dim=1),
    )
    runner = PassRunner(model, PassPlan(parse_metrics(metrics), steps), 16)
    (found,) = runner.iter_evidence([image])
    return found.rows[0]


def test_deletion_and_insertion_are_those_of_torch_cam(
    network: nn.Module, image: PreparedImage
) -> None:
    row = score(network, image, "srg_zero", 20)
    shares = compute_shares(row.pixel_count, 20)
    extractor: Any = StoredMap(network, image.pixel_maps[0].values)
    peer = DeletionInsertionMetric(extractor, partial(torch.softmax, dim=-1), steps=20)
    peer.update(image.image[None], image.class_index)
    found = peer.summary()
    deletion = compute_area(shares, row.curves["zero_morf"])
    insertion = compute_insertion(shares, row.curves["zero_lerf"])
    assert found["deletion_auc"] == pytest.approx(deletion, abs=1e-5)
    assert found["insertion_auc"] == pytest.approx(insertion, abs=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__")  # of the peer
def test_road_is_that_of_pytorch_grad_cam_without_ties(
    network: nn.Module, image: PreparedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = (0.0, road.neighbors_weights)  # each library draws noise of its own
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", quiet)
    row = score(network, image, "road", 20)
    own = compute_road(row.curves["linear_morf"][1:-1], row.curves["linear_lerf"][1:-1])
    peer = road.ROADCombined(percentiles=list(range(10, 100, 10)))(
        image.image[None],
        image.pixel_maps[0].values.numpy()[None],
        [ClassifierOutputSoftmaxTarget(image.class_index)],
        network,
    )
    assert own == pytest.approx(float(np.ravel(peer)[0]), abs=2e-4)
    assert abs(own) > 2e-3
