"""Every method on networks of one channel and of five: shapes, batches, and values by hand."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from conftest import lively
from small_networks import FEW, hooks, top
from torch import Tensor, nn

from camcli.core.types import Transform
from camcli.engine.explain_batch import ExplainOptions, explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.smoothing import parse_smoothing
from camcli.methods.registry import METHODS, find_method
from camcli.models.model import Model, wrap_network

SIZE = (48, 64)
CNN_METHODS = sorted(name for name, method in METHODS.items() if "CNN" in method.works_on)


@cache
def model_of(channels: int) -> Model:
    network = nn.Sequential(
        *(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)),
    )
    return wrap_network("small", lively(network), Transform(SIZE))


def noise(channels: int, count: int) -> Tensor:
    return torch.randn(count, channels, *SIZE, generator=torch.Generator().manual_seed(7))


def run(model: Model, name: str, inputs: Tensor, smooth: str = "none") -> list[BatchExplanation]:
    method, smoothing = find_method(name), parse_smoothing(smooth)
    few = {key: value for key, value in FEW.items() if key in method.options}
    requests = plan_requests(model, [method], options={name: few}, smoothing=smoothing)
    return explain_batch(model, inputs, requests, top, ExplainOptions(smoothing=smoothing))[0]


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", CNN_METHODS)
def test_maps_are_finite_and_a_batch_equals_its_singles(name: str, channels: int) -> None:
    model, inputs = model_of(channels), noise(channels, 3)
    together = run(model, name, inputs)
    for found in together:
        assert len(found.fused.values) == 3
        assert torch.isfinite(found.fused.values).all()
    assert any("ok" in found.fused.status_names for found in together)
    for b in range(3):
        for one, all_ in zip(run(model, name, inputs[b : b + 1]), together, strict=True):
            scale = float(all_.fused.values[b].abs().max())
            difference = (one.fused.values[0] - all_.fused.values[b]).abs().max()
            assert difference <= 1e-4 * (1 + scale)
    assert not list(hooks(model.network))


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("smooth", ["augment", "noise:2", "eigen"])
def test_smoothing_alters_inputs_of_any_number_of_channels(smooth: str, channels: int) -> None:
    found = run(model_of(channels), "gradcam", noise(channels, 2), smooth)
    assert torch.isfinite(found[0].fused.values).all()


@pytest.mark.parametrize("channels", [1, 5])
def test_gradcam_and_saliency_by_hand(channels: int) -> None:
    model, inputs = model_of(channels), noise(channels, 2).requires_grad_()
    features = model.network[:6](inputs)  # type: ignore[index]  # a Sequential
    logits = model.network[6:](features)  # type: ignore[index]
    classes = top(logits)[:, :1]
    score = logits.gather(1, classes).sum()
    slope, pixel_slope = torch.autograd.grad(score, [features, inputs])
    expected = (slope.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).relu()
    found = run(model, "gradcam", inputs.detach())[0].fused.values
    assert torch.allclose(found, expected.detach(), atol=1e-6)
    pixels = run(model, "saliency", inputs.detach())[0].fused.values
    assert pixels.shape == (2, *SIZE)
    assert torch.allclose(pixels, pixel_slope.abs().amax(dim=1), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_integrated_gradients_add_up_to_the_change_of_the_logit(channels: int) -> None:
    model, inputs = model_of(channels), noise(channels, 1)
    request = plan_requests(
        model,
        [find_method("integratedgradients")],
        options={"integratedgradients": {"absolute": False, "steps": 200}},
    )
    found = explain_batch(model, inputs, request, top)[0][0]
    with torch.no_grad():
        change = model.network(inputs) - model.network(torch.zeros_like(inputs))
    expected = change[0, top(model.network(inputs))[0, 0]]
    assert float(found.fused.values.sum()) == pytest.approx(float(expected), abs=2e-2)


def test_occlusion_covers_all_bands() -> None:
    """A network that sums its bands loses the sum of every band under the square."""
    network = nn.Sequential(nn.Conv2d(5, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[0].weight.data = torch.tensor([[1.0] * 5, [0.0] * 5])[:, :, None, None]
    model = wrap_network("sum", network, Transform((4, 4)))
    inputs = torch.rand(1, 5, 4, 4)
    options = {"occlusion": {"window": 2, "stride": 2}}
    requests = plan_requests(model, [find_method("occlusion")], options=options)
    found = explain_batch(model, inputs, requests, lambda _: torch.tensor([[0]]))[0][0].fused.values
    whole = float(torch.tensor([inputs.sum() / 16, 0.0]).softmax(0)[0])
    for row, col in ((0, 0), (2, 2), (0, 2)):
        left = inputs.sum() - inputs[0, :, row : row + 2, col : col + 2].sum()
        expected = whole - float(torch.stack([left / 16, torch.zeros(())]).softmax(0)[0])
        assert float(found[0, row, col]) == pytest.approx(expected, abs=1e-6)
