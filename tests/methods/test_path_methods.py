"""Methods along a path from a plain image: against the reference, captum and PAIR's saliency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import captum.attr
import numpy as np
import pytest
import reference.gradient
import reference.saliency
import saliency.core
import torch
from conftest import lively, small
from reference.maps import Doubles
from scipy.ndimage import gaussian_filter
from small_networks import (
    CLASSES,
    LAYERS,
    Read,
    assert_same,
    doubles,
    found_by,
    model_of,
    photographs,
    recorded,
)
from torch import Tensor, nn

from camcli.core.errors import UsageError
from camcli.core.rng import create_uniform_noise
from camcli.core.types import Transform
from camcli.methods._baselines import blur_inputs
from camcli.methods.paths import blurig, gradientshap, guidedig
from camcli.models.model import Model, wrap_network

KEYS = ["resnet", "efficientnet", "vit", "swin"]


def slope_of(network: nn.Module, target: int) -> Callable[[Doubles], Doubles]:
    """The gradient of one logit at any image, in the network's own precision."""

    def at(image: Doubles) -> Doubles:
        kind = next(network.parameters()).dtype
        x = torch.from_numpy(image)[None].to(kind).requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[0, target], x)
        return doubles(gradient[0])

    return at


@contextmanager
def in_doubles(model: Model) -> Iterator[Any]:
    """The network in double precision: a path that sorts gradients must not hang on rounding."""
    try:
        yield model.network.double()
    finally:
        model.network.float()


def slopes(network: nn.Module, classes: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """The input `slope` of a method."""

    def at(inputs: Tensor) -> Tensor:
        with torch.enable_grad():
            x = inputs.detach().requires_grad_()
            score = network(x)[range(len(classes)), list(classes)].sum()
            return torch.autograd.grad(score, x)[0]

    return at


# --- integrated Grad-CAM


@pytest.mark.parametrize("baseline", ["mean", "black"])
@pytest.mark.parametrize(("key", "layer", "read"), [*LAYERS[1:10:2], LAYERS[10]])
def test_integratedgradcam(key: str, layer: str, read: Read, baseline: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    start = plain_images(model, inputs)[baseline]
    found = found_by(
        model, "integratedgradcam", inputs, CLASSES[:2], layer, {"steps": 3, "baseline": baseline}
    ).fused.values
    nodes, weights = np.polynomial.legendre.leggauss(3)
    for b, target in enumerate(CLASSES[:2]):
        pairs = []
        for node in nodes:
            at = start[b] + (node + 1) / 2 * (inputs[b] - start[b])
            (a,), (g,) = recorded(model.network, [layer], at, target)
            pairs.append((read(a), read(g)))
        expected = reference.gradient.integratedgradcam((weights / 2).tolist(), pairs)
        assert_same(found[b], expected, 1e-3)


def test_integratedgradcam_is_half_of_gradcam_where_the_network_is_linear_along_the_path() -> None:
    """Without biases ReLUs keep their signs: A grows with the image, and g does not change."""
    layers = nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 6, 3, bias=False), nn.ReLU()
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    model = wrap_network("linear", network, Transform((14, 18)))
    inputs = photographs((14, 18))
    found, plain = (
        found_by(model, name, inputs, spec="1").fused.values
        for name in ("integratedgradcam", "gradcam")
    )
    assert_same(found, doubles(plain / 2))
    assert plain.amax(dim=(1, 2)).max() > 0


# --- baselines


def integrated(model: Model, inputs: Tensor, baseline: str, steps: int) -> Tensor:
    options = {"baseline": baseline, "steps": steps, "absolute": False}
    return found_by(model, "integratedgradients", inputs, CLASSES[:2], options=options).fused.values


def plain_images(model: Model, inputs: Tensor) -> dict[str, Tensor]:
    """What the baselines are, by way of the pixels."""
    mean, std = (
        torch.tensor(each)[:, None, None] for each in (model.transform.mean, model.transform.std)
    )
    sigma = 0.1 * min(model.input_size)
    soft = gaussian_filter(doubles(inputs), (0, 0, sigma, sigma), mode="constant")
    whole = torch.ones_like(inputs)
    return {
        "mean": 0 * whole,
        "black": (0 * whole - mean) / std,
        "white": (whole - mean) / std,
        "blur": torch.from_numpy(soft).float(),
    }


@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur"])
@pytest.mark.parametrize("key", KEYS)
def test_integrated_gradients_from_a_baseline(key: str, baseline: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    start = plain_images(model, inputs)[baseline]
    peer = captum.attr.IntegratedGradients(model.network)
    theirs = peer.attribute(inputs, start, target=list(CLASSES[:2]), n_steps=5).sum(dim=1)
    for found, expected in zip(integrated(model, inputs, baseline, 5), theirs, strict=True):
        # Not less: the blur is a product of matrices here, and sums run in another order.
        assert_same(found, doubles(expected))


def test_baselines_are_those_of_the_models_own_normalisation() -> None:
    """An image that is the baseline contributes nothing."""
    model = small("test_resnet", 96, 128)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.transform.mean, model.transform.std)
    )
    for baseline, pixel in (("black", 0.0), ("white", 1.0)):
        image = ((pixel - mean) / std).expand(2, 3, 96, 128).contiguous()
        assert integrated(model, image, baseline, 2).abs().max() <= 1e-5
        assert integrated(model, image, "mean", 2).abs().max() > 1e-3


# --- GradientSHAP


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("key", KEYS)
def test_gradientshap(key: str, noise: float) -> None:
    """In double precision: near a plain image, rounding decides at many ReLUs alike."""
    model = model_of(key)
    inputs = photographs(model.input_size, 2).double()
    plain, shares, fields = drawn(model, 3, 4)
    black, white = (plain_images(model, inputs)[name][0, :, :1, :1] for name in ("black", "white"))
    with in_doubles(model) as network:
        found = gradientshap(
            inputs,
            torch.stack([black, white]),
            slopes(network, CLASSES[:2]),
            samples=3,
            seed=4,
            noise=noise,
            absolute=False,
        )
        for b, target in enumerate(CLASSES[:2]):
            x = doubles(inputs[b])
            copies = [x + noise * (x.max() - x.min()) * doubles(field) for field in fields]
            slope = slope_of(network, target)
            expected = reference.saliency.gradientshap(slope, copies, plain, shares)
            assert_same(found[b], expected, 1e-5)


def drawn(model: Model, samples: int, seed: int) -> tuple[list[Doubles], list[float], list[Tensor]]:
    """The plain images, the places on the way from them, and the noise."""
    numbers = create_uniform_noise((samples, 4), seed).double()
    mean, std = (np.array(each) for each in (model.transform.mean, model.transform.std))
    shape = (3, *model.input_size)
    plain = [
        np.broadcast_to(((row[:3].numpy() - mean) / std)[:, None, None], shape).copy()
        for row in numbers
    ]
    generator = torch.Generator().manual_seed(seed)
    fields = [torch.randn(shape, generator=generator) for _ in range(samples)]
    return plain, numbers[:, 3].tolist(), fields


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("key", KEYS)
def test_gradientshap_of_captum(key: str, noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With camcli's own numbers in the place of its own; an image at a time, for its range."""
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options = {"samples": 4, "seed": 6, "noise": noise, "absolute": False}
    values = found_by(model, "gradientshap", inputs, CLASSES[:2], options=options).fused.values
    plain, shares, fields = drawn(model, 4, 6)
    monkeypatch.setattr(torch, "normal", lambda _mean, std: std * torch.stack(fields))
    monkeypatch.setattr(np.random, "choice", lambda count, _size: np.arange(count))
    monkeypatch.setattr(np.random, "uniform", lambda _low, _high, _size: np.array(shares))
    peer = captum.attr.GradientShap(model.network)
    for one, target, found in zip(inputs, CLASSES[:2], values, strict=True):
        theirs = peer.attribute(
            one[None],
            torch.from_numpy(np.stack(plain)).float(),
            n_samples=4,
            stdevs=noise * float(one.max() - one.min()),
            target=target,
        )
        # Not less: all samples are one batch there, summed in another order.
        assert_same(found, doubles(theirs[0].sum(dim=0)), 2e-5)


def test_gradientshap_nearly_sums_to_what_the_logit_moves_from_plain_images() -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 1)
    options = {"samples": 200, "absolute": False}
    found = found_by(model, "gradientshap", inputs, CLASSES[:1], options=options).fused.values
    plain, _, _ = drawn(model, 200, 0)
    with torch.no_grad():
        start = model.network(torch.from_numpy(np.stack(plain)).float())[:, CLASSES[0]].mean()
        moved = model.network(inputs)[0, CLASSES[0]] - start
    assert abs(found.sum() - moved) <= 0.15 * abs(moved)


# --- guided integrated gradients

PATHS = [(4, 0.25, 0.02), (6, 0.25, 0.2), (5, 0.1, 1.0), (3, 1.0, 0.3)]


@pytest.mark.parametrize(("steps", "fraction", "distance"), PATHS)
@pytest.mark.parametrize("key", ["resnet", "efficientnet", "vit"])
def test_guidedig_of_saliency(
    key: str, steps: int, fraction: float, distance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In double precision: where two gradients are nearly equal, rounding chooses the path."""
    quantile = np.quantile  # the peer calls it as numpy 1 did
    monkeypatch.setattr(
        np, "quantile", lambda a, q, interpolation: quantile(a, q, method=interpolation)
    )
    model = model_of(key)
    inputs = photographs(model.input_size, 2).double()
    with in_doubles(model) as network, torch.no_grad():
        found = guidedig(
            inputs,
            inputs.new_zeros(2, 3, 1, 1),
            slopes(network, CLASSES[:2]),
            steps=steps,
            fraction=fraction,
            distance=distance,
            absolute=False,
        )
        for b, target in enumerate(CLASSES[:2]):
            theirs = saliency.core.GuidedIG().GetMask(
                doubles(inputs[b]),
                as_peers_model(slope_of_double(network, target)),
                x_baseline=np.zeros(inputs[b].shape),
                x_steps=steps,
                fraction=fraction,
                max_dist=distance,
            )
            assert_same(found[b], theirs.sum(axis=0), 1e-9)


def slope_of_double(network: nn.Module, target: int) -> Callable[[Doubles], Doubles]:
    slope = slope_of(network, target)

    def at(image: Doubles) -> Doubles:
        with torch.enable_grad():
            return slope(image)

    return at


def as_peers_model(slope: Callable[[Doubles], Doubles]) -> Callable[..., dict[str, Doubles]]:
    """A gradient of one image, as PAIR's saliency asks for that of a batch."""

    def call(images: Doubles, **_options: Any) -> dict[str, Doubles]:
        key = saliency.core.INPUT_OUTPUT_GRADIENTS
        return {key: np.stack([slope(np.asarray(image)) for image in images])}

    return call


def small_and_curved() -> Model:
    """A network of few pixels, so that a loop over each ends."""
    layers = nn.Conv2d(3, 6, 3), nn.GELU(), nn.Conv2d(6, 6, 3, stride=2), nn.GELU()
    network = lively(nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 4 * 6, 10)))
    return wrap_network("curved", network, Transform((12, 16)))


@pytest.mark.parametrize(("steps", "fraction", "distance"), PATHS)
def test_guidedig(steps: int, fraction: float, distance: float) -> None:
    model = small_and_curved()
    inputs = photographs((12, 16))
    options = {
        "steps": steps,
        "fraction": fraction,
        "distance": distance,
        "absolute": False,
    }
    found = found_by(model, "guidedig", inputs, options=options).fused.values
    for b, target in enumerate(CLASSES):
        slope = slope_of(model.network, target)
        expected = reference.saliency.guidedig(doubles(inputs[b]), slope, steps, fraction, distance)
        assert_same(found[b], expected, 1e-4)


def test_guidedig_is_integrated_gradients_if_no_value_may_leave_the_straight_path() -> None:
    model = small_and_curved()
    inputs = photographs((12, 16))
    options = {"steps": 1000, "distance": 0.0}
    found = found_by(model, "guidedig", inputs, options=options).fused.values
    straight = found_by(model, "integratedgradients", inputs).fused.values
    assert_same(found, doubles(straight), 0.01)
    free = found_by(model, "guidedig", inputs, options={"distance": 1.0}).fused.values
    assert (free - straight).abs().max() > 0.1 * straight.max()


@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur"])
def test_guidedig_sums_to_what_the_logit_moves_from_the_baseline(baseline: str) -> None:
    model = small_and_curved()
    inputs = photographs((12, 16))
    options = {"steps": 400, "absolute": False, "baseline": baseline, "distance": 0.1}
    found = found_by(model, "guidedig", inputs, options=options).fused.values
    start = plain_images(model, inputs)[baseline]
    with torch.no_grad():
        moved = model.network(inputs) - model.network(start)
    for b, target in enumerate(CLASSES):
        assert abs(found[b].sum() - moved[b, target]) <= 0.01 * found[b].abs().sum()


def test_guidedig_stops_where_the_image_is_the_baseline_or_not_finite() -> None:
    model = small_and_curved()
    inputs = photographs((12, 16)).clone()
    whole = found_by(model, "guidedig", inputs, options={"steps": 5}).fused.values
    inputs[0], inputs[1] = 0.0, float("nan")
    found = found_by(model, "guidedig", inputs, options={"steps": 5}).fused
    assert found.status_names == ["constant", "non_finite", "ok"]
    assert torch.allclose(found.values[2], whole[2], rtol=1e-4)


def test_guidedig_refuses_a_fraction_that_takes_for_ever() -> None:
    model = small_and_curved()
    with pytest.raises(UsageError, match=r"fraction=0\.001: write 0\.01 or more"):
        found_by(model, "guidedig", photographs((12, 16)), options={"fraction": 0.001})


# --- blur integrated gradients


@pytest.mark.parametrize("key", ["resnet", "efficientnet", "vit"])
def test_blurig(key: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options = {"steps": 3, "sigma": 6.0, "absolute": False}
    found = found_by(model, "blurig", inputs, CLASSES[:2], options=options).fused.values
    for b, target in enumerate(CLASSES[:2]):
        slope = slope_of(model.network, target)
        expected = reference.saliency.blurig(doubles(inputs[b]), slope, 3, 6.0)
        assert_same(found[b], expected, 1e-3)


@pytest.mark.parametrize("key", ["resnet", "efficientnet", "vit"])
def test_blurig_of_saliency(key: str) -> None:
    """Its estimate of a step from a blur that is one step larger is the step itself."""
    model = model_of(key)
    inputs = photographs(model.input_size, 2).double()
    with in_doubles(model) as network, torch.no_grad():
        found = blurig(inputs, slopes(network, CLASSES[:2]), steps=5, sigma=10.0, absolute=False)
        for b, target in enumerate(CLASSES[:2]):
            slope = slope_of_double(network, target)

            def channels_last(image: Doubles, slope: Any = slope) -> Doubles:
                gradient: Doubles = slope(image.transpose(2, 0, 1).copy()).transpose(1, 2, 0)
                return gradient

            theirs = saliency.core.BlurIG().GetMask(
                doubles(inputs[b]).transpose(1, 2, 0),
                as_peers_model(channels_last),
                max_sigma=10,
                steps=5,
                grad_step=2.0,
            )
            assert_same(found[b], theirs.sum(axis=2), 1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 3.0, 50.0])
def test_blur(sigma: float) -> None:
    images = photographs((24, 37), 2)
    expected = gaussian_filter(doubles(images), (0, 0, sigma, sigma), mode="constant")
    assert np.abs(doubles(blur_inputs(images, sigma)) - expected).max() <= 1e-5
    assert_same(
        blur_inputs(images, sigma)[0], reference.saliency.blurred(doubles(images[0]), sigma), 1e-5
    )
