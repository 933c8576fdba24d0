"""Recipro-CAM, Opti-CAM, Group-CAM, SIDU and Poly-CAM, each against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from conftest import small
from reference.maps import Doubles
from small_networks import (
    CLASSES,
    LAYERS,
    Read,
    assert_same,
    channels_first,
    doubles,
    found_by,
    model_of,
    outputs_of,
    photographs,
    recorded,
)
from test_against_reference_other_methods import (
    ABLATED,
    NARROW,
    probability,
    relu_network,
    run_from,
)
from torch import Tensor, nn

from camcli.core.blur import blur_with_mirror
from camcli.core.errors import MethodError
from camcli.core.types import Transform
from camcli.engine.plan import plan_requests
from camcli.methods.registry import find_method
from camcli.models.model import Model, wrap_network

IMAGE, TARGET = 1, CLASSES[1]  # the second photograph and its class
DEEP = [LAYERS[0], LAYERS[2], LAYERS[5], LAYERS[6], LAYERS[8], LAYERS[9]]


def map_of(
    method: str, model: Model, layer: str | None, options: dict[str, Any] | None = None
) -> Tensor:
    """camcli's map of the second of two photographs."""
    inputs = photographs(model.input_size, 2)
    found = found_by(model, method, inputs, CLASSES[:2], layer, options)
    return found.fused.values[IMAGE]


def activations_and_gradients(model: Model, layer: str, read: Read) -> tuple[Doubles, Doubles]:
    image = photographs(model.input_size, 2)[IMAGE]
    (activation,), (gradient,) = recorded(model.network, [layer], image, TARGET)
    return read(activation), read(gradient)


def second_image(model: Model) -> Doubles:
    return doubles(photographs(model.input_size, 2)[IMAGE])


@pytest.mark.parametrize("gaussian", [False, True])
@pytest.mark.parametrize(("key", "layer", "read"), [*DEEP, *ABLATED[-1:]])
def test_reciprocam(key: str, layer: str, read: Read, gaussian: bool) -> None:
    model = model_of(key)
    found = map_of("reciprocam", model, layer, {"gaussian": gaussian})
    image = photographs(model.input_size, 2)[IMAGE]
    (output,), _ = recorded(model.network, [layer], image, TARGET)
    # Which numbers of the output are where in the map, whatever the layout.
    places = read(torch.arange(output.numel()).reshape(output.shape)).astype(int)

    def seen(a: Doubles) -> float:
        changed = output.detach().flatten().clone()
        changed[places.ravel()] = torch.from_numpy(a.ravel()).float()
        with torch.no_grad():
            logits = run_from(model.network, layer, image, changed.view_as(output))
        return float(logits.double().softmax(dim=1)[0, TARGET])

    expected = reference.perturbation.reciprocam(read(output), seen, gaussian)
    assert_same(found, expected)
    assert np.ptp(expected) > 1e-3 * expected.max()


@pytest.mark.parametrize(("key", "layer", "read"), DEEP)
def test_opticam(key: str, layer: str, read: Read) -> None:
    model = model_of(key)
    found = map_of("opticam", model, layer, {"steps": 3, "rate": 0.5})

    def slope(image: Doubles) -> Doubles:
        source = torch.from_numpy(image).float()[None].requires_grad_()
        logit = model.network(source)[0, TARGET]
        return doubles(torch.autograd.grad(logit, source)[0][0])

    a, _ = activations_and_gradients(model, layer, read)
    expected = reference.perturbation.opticam(a, second_image(model), slope, 3, 0.5)
    start = reference.perturbation.opticam(a, second_image(model), slope, 0, 0.5)
    assert_same(found, expected, 1e-3)
    assert np.abs(expected - start).max() > 0.02 * start.max()


def test_opticam_makes_the_masked_image_keep_its_class() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size, 2)

    def masked_logit(steps: int) -> float:
        m = map_of("opticam", model, None, {"steps": steps})
        large = torch.nn.functional.interpolate(m[None, None], model.input_size, mode="bilinear")
        mask = (large - large.min()) / (large.max() - large.min())
        with torch.no_grad():
            return float(model.network(inputs[IMAGE] * mask)[0, TARGET])

    assert masked_logit(0) < masked_logit(5) < masked_logit(40)


@pytest.mark.parametrize(("groups", "quantile"), [(4, 0.7), (7, 0.0)])
@pytest.mark.parametrize(("key", "layer", "read"), DEEP)
def test_groupcam(key: str, layer: str, read: Read, groups: int, quantile: float) -> None:
    """Of the class with the largest map: a random network prefers the blurred image for most."""
    model = model_of(key)
    image = photographs(model.input_size, 2)[IMAGE]
    options = {"groups": groups, "quantile": quantile}
    every = image.expand(10, *image.shape)
    found = found_by(model, "groupcam", every, range(10), layer, options).fused.values
    target = int(found.amax(dim=(1, 2)).argmax())
    (activation,), (gradient,) = recorded(model.network, [layer], image, target)
    expected = reference.perturbation.groupcam(
        read(activation),
        read(gradient),
        doubles(image),
        probability(model, target),
        groups,
        quantile,
    )
    assert_same(found[target], expected, 1e-3)
    assert expected.max() > 0


@pytest.mark.parametrize("method", ["groupcam", "scorecam", "sidu", "opticam"])
def test_a_layer_without_contrast_gives_a_constant_map(method: str) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    for parameter in network[0].parameters():
        nn.init.zeros_(parameter)
    model = wrap_network("flat", network, Transform((12, 16)))
    found = found_by(model, method, torch.rand(1, 3, 12, 16), [1], "0")
    assert found.fused.status_names == ["constant"]


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (40, 70)])
def test_a_blur_sees_the_image_mirrored_at_its_borders(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    blurred = blur_with_mirror(image, 51, 50.0)
    for b, c in np.ndindex(2, 3):
        down = reference.perturbation.blur(doubles(image[b, c]))
        expected = reference.perturbation.blur(down.T).T
        assert np.abs(doubles(blurred[b, c]) - expected).max() < 1e-6


@pytest.mark.parametrize(("cutoff", "width"), [(0.1, 0.25), (0.5, 0.02)])
@pytest.mark.parametrize(("key", "layer", "read"), NARROW)
def test_sidu(key: str, layer: str, read: Read, cutoff: float, width: float) -> None:
    model = model_of(key)
    found = map_of("sidu", model, layer, {"cutoff": cutoff, "width": width})

    def probabilities(image: Doubles) -> Doubles:
        with torch.no_grad():
            logits = model.network(torch.from_numpy(image).float()[None])
        return doubles(logits.double().softmax(dim=1)[0])

    a, _ = activations_and_gradients(model, layer, read)
    expected = reference.perturbation.sidu(
        a, second_image(model), probabilities, TARGET, cutoff, width
    )
    assert_same(found, expected, 1e-3)
    assert expected.max() > 0


STAGES = {
    "resnet": ["act1", "layer1", "layer2", "layer3", "layer4"],
    "small": ["act1", "act2"],
}


def resolutions_model(key: str) -> Model:
    return relu_network() if key == "small" else model_of(key)


@pytest.mark.parametrize("variant", ["plus", "minus", "both"])
@pytest.mark.parametrize("key", STAGES)
def test_polycam(key: str, variant: str) -> None:
    model = resolutions_model(key)
    image = photographs(model.input_size, 2)[IMAGE]
    with outputs_of(model.network, STAGES[key]) as kept, torch.no_grad():
        target = int(model.network(image[None]).argmax())
    stages = [channels_first(kept[name]) for name in STAGES[key]]
    found = found_by(model, "polycam", image[None], [target], options={"variant": variant})
    expected = reference.perturbation.polycam(
        stages, doubles(image), probability(model, target), variant
    )
    assert_same(found.fused.values[0], expected, 1e-3)
    assert expected.max() > 0


def test_polycam_joins_the_chosen_layers_only() -> None:
    model = model_of("resnet")
    requests = plan_requests(model, [find_method("polycam")], "stage4,stage2")
    assert [layer.name for layer in requests[0].source_layers] == ["layer1", "layer3"]
    with pytest.raises(MethodError, match="different resolutions"):
        plan_requests(model, [find_method("polycam")], "layer4,layer4.0")


def test_polycam_prefers_stages_and_leaves_out_what_may_be_negative() -> None:
    (plain,) = plan_requests(model_of("resnet"), [find_method("polycam")])
    assert [layer.name for layer in plain.source_layers] == STAGES["resnet"]
    lite = small("tf_efficientnet_lite0", 96, 128)
    (request,) = plan_requests(lite, [find_method("polycam")])
    assert [layer.name for layer in request.source_layers] == [
        *(f"blocks.{n}.0.bn1" for n in (1, 2, 3, 5)),
        "bn2",
    ]
