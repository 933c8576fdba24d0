"""The methods that need more than one gradient of one layer, each against the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import reference
import torch
from conftest import lively
from reference.maps import Doubles
from small_networks import (
    CLASSES,
    LAYERS,
    QUERIES,
    Read,
    assert_same,
    attended,
    channels_first,
    doubles,
    found_by,
    model_of,
    outputs_of,
    photographs,
    recorded,
    tokens,
)
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from camcli.core.errors import MethodError
from camcli.core.rng import create_normal_noise, create_uniform_noise
from camcli.core.types import Transform
from camcli.engine.plan import plan_requests
from camcli.methods._masks import create_channel_masks, create_random_masks
from camcli.methods.registry import METHODS, find_method
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.model import Model, wrap_network

# Each has a comparison of its own, here or in test_against_reference. The methods of activations
# and gradients alone are compared there all together, and so are new ones.
COMPARED_ONE_BY_ONE = {
    *("cam", "tscam", "eigencam", "kpcacam", "fem", "eigengradcam", "randomcam"),
    *("smoothgradcam++", "shapleycam", "fullgrad", "scorecam", "iscam", "sscam", "ablationcam"),
    *("occlusion", "rise", "rollout", "gradrollout", "chefer", "attention", "legrad", "lrp"),
    *("saliency", "inputxgradient", "smoothgrad", "integratedgradients"),
    *("guidedbackprop", "guided-gradcam", "dff"),
    *("integratedgradcam", "gradientshap", "guidedig", "blurig", "gradientattention"),
    "mctformer",  # in test_token_classes
    "deeplift",  # in test_relevance_methods, and so is LRP of convolutional networks
    *("reciprocam", "opticam", "groupcam", "sidu", "polycam"),  # in test_masking_methods
    *("lime", "kernelshap", "xrai"),  # test_segment_methods
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_reference(name: str) -> None:
    method = METHODS[name]
    module = {"classifier": "cam"}.get(method.family, method.family)
    wanted = f"tests/reference/{module}.py: {method.function.__name__}"
    assert hasattr(getattr(reference, module, None), method.function.__name__), wanted


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_compared_with_its_reference(name: str) -> None:
    method = METHODS[name]
    together = method.input_names == ("activations", "gradients") and method.family == "gradient"
    assert together or name in COMPARED_ONE_BY_ONE, "write a comparison, and name it in the set"


# --- activations


def nearest_sign(found: Doubles, expected: Doubles, mirrored: Doubles, terms: Doubles) -> Doubles:
    """The map of either sign where rounding decides the sign, else the expected one.

    Behind a LayerNorm, g A sums to almost 0 over the channels, so the sum gives no sign.
    """
    component, total = expected - mirrored, terms.sum(axis=0)
    along = abs((component * total).sum())
    if along > 1e-5 * np.linalg.norm(component) * np.abs(terms).sum(axis=0).max():
        return expected
    return min(expected, mirrored, key=lambda version: float(np.abs(found - version).max()))


@pytest.mark.parametrize("method", ["eigencam", "kpcacam", "fem", "eigengradcam", "randomcam"])
@pytest.mark.parametrize(("key", "layer", "read"), LAYERS[:8:2] + LAYERS[8::2])
def test_activation_methods(method: str, key: str, layer: str, read: Read) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size)
    found = found_by(model, method, inputs, spec=layer).fused.values
    version = getattr(reference.activation, method)
    for b, target in enumerate(CLASSES):
        (activation,), (gradient,) = recorded(model.network, [layer], inputs[b], target)
        a, g = read(activation), read(gradient)
        if method == "eigengradcam":
            expected = nearest_sign(doubles(found[b]), version(a, g), version(a, -g), a * g)
        elif method == "randomcam":
            expected = version(a, doubles(2 * create_uniform_noise((len(a),), 0) - 1).tolist())
        else:
            expected = version(a)
        assert_same(found[b], expected, 1e-3 if method == "kpcacam" else 1e-4)
        assert expected.max() > 0 or method == "randomcam"


# --- gradients, of more than the image itself or of more than once


@pytest.mark.parametrize(("key", "layer", "read"), [LAYERS[0], LAYERS[5], LAYERS[8]])
def test_smoothgradcam(key: str, layer: str, read: Read) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options = {"samples": 3, "seed": 4}
    found = found_by(model, "smoothgradcam++", inputs, CLASSES[:2], layer, options).fused.values
    generator = torch.Generator().manual_seed(4)
    fields = [torch.randn(3, *model.input_size, generator=generator) for _ in range(3)]
    for b, target in enumerate(CLASSES[:2]):
        (activation,), _ = recorded(model.network, [layer], inputs[b], target)
        share = 0.2 * (inputs[b].max() - inputs[b].min())
        noisy = [recorded(model.network, [layer], inputs[b] + share * f, target) for f in fields]
        gradients = [read(g) for _, (g,) in noisy]
        assert_same(
            found[b], reference.gradient.smoothgradcam_plus_plus(read(activation), gradients)
        )


def run_from(network: nn.Module, layer: str, image: Tensor, output: Tensor) -> Tensor:
    """Logits, with a layer's output put in its place."""
    hook = network.get_submodule(layer).register_forward_hook(lambda *_: output)
    try:
        logits: Tensor = network(image[None])
    finally:
        hook.remove()
    return logits


def slope_at(network: nn.Module, layer: str, image: Tensor, output: Tensor, target: int) -> Tensor:
    output = output.detach().requires_grad_()
    logits = run_from(network, layer, image, output)
    return torch.autograd.grad(logits[0, target], output)[0]


@pytest.mark.parametrize("place", [3, 5, 7, 8, 12])
def test_shapleycam(place: int) -> None:
    """The curvature as a difference of gradients, along the activations, in double precision."""
    key, layer, read = LAYERS[place]
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "shapleycam", inputs, CLASSES[:2], layer).fused.values
    plain = found_by(model, "gradcam", inputs, CLASSES[:2], layer).fused.values
    network = model.network.double()
    try:
        for b, target in enumerate(CLASSES[:2]):
            image = inputs[b].double()
            (output,), (gradient,) = recorded(network, [layer], image, target)
            up, down = (slope_at(network, layer, image, s * output, target) for s in (1.001, 0.999))
            expected = reference.gradient.shapleycam(
                read(output), read(gradient), read((up - down) / 0.002)
            )
            assert_same(found[b], expected, 1e-3)
    finally:
        network.float()
    assert (found - plain).abs().max() > 0.01 * plain.max()  # these layers are curved


def test_shapleycam_is_gradcam_where_the_score_is_piecewise_linear() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size)
    for layer in ("layer2", "layer4"):
        found, plain = (
            found_by(model, m, inputs, spec=layer).fused.values for m in ("shapleycam", "gradcam")
        )
        assert_same(found, doubles(plain))


def relu_network(held: bool = False) -> Model:
    """Convolutions with biases, batch norms, ReLU, mean, linear: nothing but what is linear.

    The activations stand by themselves, or timm's norms hold them.
    """
    norm: Any = partial(BatchNormAct2d, act_layer=nn.ReLU) if held else nn.BatchNorm2d
    after: Any = nn.Identity if held else nn.ReLU

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), norm(6)
            self.conv2, self.norm2 = nn.Conv2d(6, 8, 3, stride=2, padding=1), norm(8)
            self.act1, self.act2 = after(), after(inplace=True)
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = self.act1(self.norm1(self.conv1(x)))
            x = self.act2(self.norm2(self.conv2(x)))
            logits: Tensor = self.fc(x.mean(dim=(2, 3)))
            return logits

    network: Any = lively(Small())
    for norm in (network.norm1, network.norm2):
        norm.running_mean.uniform_(-0.5, 0.5, generator=torch.Generator().manual_seed(1))
        norm.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(2))
    return wrap_network("small", network, Transform((12, 16)))


def bias_terms(network: Any, image: Tensor, target: int) -> tuple[Doubles, list[Doubles]]:
    """The gradient at the input, and bias times gradient after each layer that adds one."""
    x = image[None].clone().requires_grad_()
    network = deepcopy(network)
    for module in network.modules():  # in-place ReLU must not overwrite what is asked about
        if isinstance(module, nn.ReLU):
            module.inplace = False
    drop = ".drop" if hasattr(network.norm1, "drop") else ""
    with outputs_of(network, [f"norm1{drop}", "conv2", f"norm2{drop}"]) as kept:
        logits = network(x)
    gradients = torch.autograd.grad(logits[0, target], [x, *kept.values()])
    biases = []
    for name in ("norm1", "conv2", "norm2"):
        layer = network.get_submodule(name)
        own = doubles(layer.bias)
        if name != "conv2":
            sigma = np.sqrt(doubles(layer.running_var) + layer.eps)
            own = own - doubles(layer.running_mean) * doubles(layer.weight) / sigma
        biases.append(own)
    terms = [b[:, None, None] * doubles(g[0]) for b, g in zip(biases, gradients[1:], strict=True)]
    return doubles(gradients[0][0]), terms


@pytest.mark.parametrize("held", [False, True])
def test_fullgrad(held: bool) -> None:
    model = relu_network(held)
    inputs = photographs(model.input_size)
    found = found_by(model, "fullgrad", inputs).fused.values
    for b, target in enumerate(CLASSES):
        slope, terms = bias_terms(model.network, inputs[b], target)
        assert_same(found[b], reference.gradient.fullgrad(doubles(inputs[b]), slope, terms))
        # What makes it full: in a piecewise linear network nothing of the logit is left over.
        whole = (doubles(inputs[b]) * slope).sum() + sum(t.sum() for t in terms)
        network: Any = model.network
        logit = float(network(inputs[b : b + 1])[0, target] - network.fc.bias[target])
        assert abs(whole - logit) <= 1e-4 * abs(logit)


def test_fullgrad_is_refused_where_a_bias_is_not_fixed() -> None:
    model = relu_network()
    network: Any = model.network
    network.norm1 = nn.GroupNorm(2, 6)
    with pytest.raises(MethodError, match="whose bias is not fixed"):
        plan_requests(model, [find_method("fullgrad")])


# --- perturbations


def probability(model: Model, target: int) -> Callable[[Doubles], float]:
    def of(image: Doubles) -> float:
        with torch.no_grad():
            logits = model.network(torch.from_numpy(image).float()[None])
        return float(logits.double().softmax(dim=1)[0, target])

    return of


# A layer of few channels each, so that a loop over them ends.
NARROW: list[tuple[str, str, Read]] = [
    ("resnet", "layer1", channels_first),
    ("efficientnet", "blocks.0", channels_first),
    ("vit", "blocks.5.norm1", tokens(1, 6, 8)),
]


@pytest.mark.parametrize("method", ["scorecam", "iscam", "sscam"])
@pytest.mark.parametrize(("key", "layer", "read"), NARROW)
def test_masking_methods(method: str, key: str, layer: str, read: Read) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options: dict[str, Any] = {"sscam": {"samples": 2, "seed": 3}, "iscam": {"steps": 2}}
    own = options.get(method, {})
    found = found_by(model, method, inputs, CLASSES[:2], layer, own).fused.values
    fields = [doubles(f) for f in 2.0 * create_normal_noise((2, *model.input_size), 3)]
    b, target = 1, CLASSES[1]
    (activation,), _ = recorded(model.network, [layer], inputs[b], target)
    a, x, p = read(activation), doubles(inputs[b]), probability(model, target)
    expected = {
        "scorecam": lambda: reference.perturbation.scorecam(a, x, p),
        "iscam": lambda: reference.perturbation.iscam(a, x, p, 2),
        "sscam": lambda: reference.perturbation.sscam(a, x, p, fields),
    }[method]()
    assert_same(found[b], expected)


def test_equal_masks_are_scored_once_and_constant_ones_not_at_all() -> None:
    activations = torch.zeros(1, 5, 2, 3)
    activations[0, 0, 1, 2], activations[0, 3, 1, 2] = 2.0, 0.5  # equal, once min-maxed
    activations[0, 1] = torch.arange(6.0).reshape(2, 3)
    activations[0, 4] = 7.0  # the same everywhere
    found = create_channel_masks(activations, torch.ones(1, 3, 4, 6), 0)
    assert found.scored_channels.tolist() == [[True, True, False, False, False]]
    assert found.varying_channels.tolist() == [[True, True, False, True, False]]
    terms = found.weight_activations(
        lambda wanted: torch.tensor([[3.0, 5.0, 0.0, 0.0, 0.0]]), "probability"
    )
    assert torch.equal(terms[0, 3], 3 * activations[0, 3])
    assert not terms[0, 4].any()
    shares = found.weight_activations(lambda wanted: torch.zeros(1, 5), "softmax")
    assert torch.allclose(shares[0, 1], activations[0, 1] / 3)
    two = create_channel_masks(activations, torch.ones(1, 3, 4, 6), 1)
    assert two.scored_channels.tolist() == [[False, True, False, False, False]]


ABLATED = [
    *NARROW,
    ("resnet", "layer2.0.conv1", channels_first),
    ("convnext", "stages.0", channels_first),
    ("vgg", "features.2", channels_first),
    LAYERS[7],
]


@pytest.mark.parametrize(("key", "layer", "read"), ABLATED)
def test_ablationcam(key: str, layer: str, read: Read) -> None:
    """Run again from the layer on, it is what a run from the pixels on gives."""
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "ablationcam", inputs, CLASSES[:2], layer, {}).fused.values
    b, target = 1, CLASSES[1]
    (output,), _ = recorded(model.network, [layer], inputs[b], target)
    # Which numbers of the output are channel k, whatever the layout.
    numbers = torch.arange(output.numel()).reshape(output.shape)
    places = read(numbers).astype(int)

    def score(a: Doubles) -> float:
        changed = output.detach().flatten().clone()
        changed[places.ravel()] = torch.from_numpy(a.ravel()).float()
        with torch.no_grad():
            logits = run_from(model.network, layer, inputs[b], changed.view_as(output))
        return float(logits[0, target])

    assert_same(found[b], reference.perturbation.ablationcam(read(output), score), 1e-3)


def test_a_network_resumed_at_a_layer_does_nothing_before_it() -> None:
    from camcli.engine.partial_forward import create_partial_forward

    model = model_of("resnet")
    calls = []
    hook = model.network.get_submodule("layer1.0.conv1").register_forward_hook(
        lambda *_: calls.append(1)
    )
    image = photographs(model.input_size, 1)
    try:
        with outputs_of(model.network, ["layer3"]) as kept:
            logits = model.network(image)
        run_from_layer = create_partial_forward(model.network, "layer3", image)
        calls.clear()
        assert torch.allclose(run_from_layer(kept["layer3"].repeat(5, 1, 1, 1)), logits, atol=1e-4)
    finally:
        hook.remove()
    stubs = [m for m in model.network.modules() if "forward" in vars(m)]
    assert not calls
    assert not stubs


def test_occlusion() -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 2)
    options = {"window": 40, "stride": 25}
    found = found_by(model, "occlusion", inputs, CLASSES[:2], options=options).fused.values
    for b, target in enumerate(CLASSES[:2]):
        p = probability(model, target)
        assert_same(found[b], reference.perturbation.occlusion(doubles(inputs[b]), p, 40, 25), 1e-3)


def test_rise() -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 2)
    options = {"masks": 40, "seed": 2}
    found = found_by(model, "rise", inputs, CLASSES[:2], options=options).fused.values
    grids = create_random_masks(model.input_size, 40, 7, 0.5, 2)
    shown = [doubles(m) for m in grids(torch.arange(40))]
    for b, target in enumerate(CLASSES[:2]):
        p = probability(model, target)
        assert_same(found[b], reference.perturbation.rise(doubles(inputs[b]), p, shown, 0.5))


def test_random_grids_are_open_as_often_as_asked_and_smooth() -> None:
    grids = create_random_masks((96, 130), 200, 7, 0.3, 1)
    shown = grids(torch.arange(200))
    assert shown.shape == (200, 96, 130)
    assert abs(float(shown.mean()) - 0.3) < 0.02
    assert float((shown[:, :, 1:] - shown[:, :, :-1]).abs().max()) < 0.1
    assert not torch.equal(shown[0], shown[1])
    weights = torch.rand(2, 200)
    assert torch.allclose(
        grids.sum_weighted(weights), torch.einsum("bn,nhw->bhw", weights, shown), atol=1e-4
    )


# --- attention


@pytest.mark.parametrize("method", ["rollout", "gradrollout", "chefer"])
@pytest.mark.parametrize("key", QUERIES)
def test_attention_methods(method: str, key: str) -> None:
    model = model_of(key)
    prefix, queries = QUERIES[key]
    inputs = photographs(model.input_size, 2)
    found = found_by(model, method, inputs, CLASSES[:2]).fused.values
    for b, target in enumerate(CLASSES[:2]):
        matrices, gradients = attended(model, inputs[b], target)
        given = (matrices,) if method == "rollout" else (matrices, gradients)
        rolled = getattr(reference.attention, method)(*given)
        if method != "chefer":
            assert np.allclose(rolled.sum(axis=1), 1)
        grid = (found.shape[1], found.shape[2])
        # Of the image alone it is CLS that sums it up, read or not.
        cls = [0] if prefix and "no CLS" not in key else queries
        rows = cls if method == "rollout" else queries
        assert_same(found[b], reference.attention.read(rolled, rows, prefix, grid))


def test_raw_attention() -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 2)
    last, mean, third = (
        found_by(model, "attention", inputs, CLASSES[:2], options={"block": block}).fused.values
        for block in ("last", "mean", "3")
    )
    matrices, _ = attended(model, inputs[1], CLASSES[1])
    assert_same(last[1], reference.attention.attention(matrices, 1, (6, 8)))
    assert_same(third[1], reference.attention.attention(matrices[:4], 1, (6, 8)))
    maps = np.stack([reference.attention.attention([m], 1, (6, 8)) for m in matrices])
    assert_same(mean[1], maps.mean(axis=0))


@pytest.mark.parametrize("heads", ["max", "min"])
def test_rollout_over_heads(heads: str) -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 1)
    found = found_by(model, "rollout", inputs, [1], options={"heads": heads}).fused.values
    matrices, _ = attended(model, inputs[0], 1)
    joined = [getattr(m, heads)(axis=0)[None] for m in matrices]
    assert_same(
        found[0], reference.attention.read(reference.attention.rollout(joined), [0], 1, (6, 8))
    )


def test_rollout_discards_of_every_image_of_a_batch() -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 3)
    found = found_by(model, "rollout", inputs, options={"discard": 0.9}).fused.values
    for b in range(3):
        matrices, _ = attended(model, inputs[b], 1)
        kept = []
        for matrix in matrices:
            mean = matrix.mean(axis=0)
            for row in mean:
                row[1:][np.argsort(row[1:])[: int(0.9 * len(row))]] = 0
            kept.append(mean[None])
        assert_same(
            found[b], reference.attention.read(reference.attention.rollout(kept), [0], 1, (6, 8))
        )


@pytest.mark.parametrize("key", ["vit", "vit, patches pooled", "vit, 160x224"])
def test_legrad(key: str) -> None:
    model = model_of(key)
    network: Any = model.network
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "legrad", inputs, CLASSES[:2]).fused.values
    count = len(network.blocks)
    names = [name for n in range(count) for name in (f"blocks.{n}.attn.attn_drop", f"blocks.{n}")]
    for b, target in enumerate(CLASSES[:2]):
        with (
            disable_fused_attention([block.attn for block in network.blocks]),
            outputs_of(network, names) as kept,
        ):
            network(inputs[b : b + 1].clone().requires_grad_())
        gradients = []
        for n in range(count):
            mean = kept[f"blocks.{n}"].mean(dim=1)
            score = network.head(network.fc_norm(network.norm(mean)))[0, target]
            matrix = kept[f"blocks.{n}.attn.attn_drop"]
            (gradient,) = torch.autograd.grad(score, matrix, retain_graph=True)
            gradients.append(doubles(gradient[0]))
        grid = (found.shape[1], found.shape[2])
        assert_same(
            found[b], reference.attention.read(reference.attention.legrad(gradients), [], 1, grid)
        )


@pytest.mark.parametrize("block", [0, 3])
def test_lrp(block: int) -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "lrp", inputs, CLASSES[:2], f"blocks.{block}").fused.values
    network = model.network.double()
    try:
        for b, target in enumerate(CLASSES[:2]):
            expected = reference.attention.lrp(network, doubles(inputs[b]), target, block)
            assert_same(found[b], np.maximum(expected, 0), 1e-3)
    finally:
        network.float()
    if block == 0:
        assert torch.equal(found_by(model, "lrp", inputs, CLASSES[:2]).fused.values, found)


# --- input space


def slope_of(network: nn.Module, target: int) -> Callable[[Doubles], Doubles]:
    def at(image: Doubles) -> Doubles:
        x = torch.from_numpy(image).float()[None].requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[0, target], x)
        return doubles(gradient[0])

    return at


@pytest.mark.parametrize(
    "method", ["saliency", "inputxgradient", "integratedgradients", "smoothgrad"]
)
@pytest.mark.parametrize("key", ["resnet", "efficientnet", "vit", "swin"])
def test_input_space(method: str, key: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options: dict[str, Any] = {
        "integratedgradients": {"steps": 3},
        "smoothgrad": {"samples": 2, "seed": 5},
    }
    given = options.get(method, {})
    found = found_by(model, method, inputs, CLASSES[:2], options=given).fused.values
    generator = torch.Generator().manual_seed(5)
    fields = [torch.randn(3, *model.input_size, generator=generator) for _ in range(2)]
    for b, target in enumerate(CLASSES[:2]):
        x = doubles(inputs[b])
        noisy = [x + 0.15 * (x.max() - x.min()) * doubles(f) for f in fields]
        expected = in_input_space(method, x, slope_of(model.network, target), noisy)
        assert_same(found[b], expected, 1e-3)


def in_input_space(
    method: str, x: Doubles, slope: Callable[[Doubles], Doubles], noisy: Sequence[Doubles]
) -> Doubles:
    if method == "saliency":
        return reference.saliency.saliency(slope(x))
    if method == "inputxgradient":
        return reference.saliency.inputxgradient(x, slope(x))
    if method == "smoothgrad":
        return reference.saliency.smoothgrad(slope, noisy)
    return reference.saliency.integratedgradients(x, slope, 3)


def test_integrated_gradients_are_complete() -> None:
    """To 1 % of what the logit moves, with a hundred steps."""
    for key in ("efficientnet", "vit"):
        model = model_of(key)
        inputs = photographs(model.input_size)
        options = {"absolute": False, "steps": 100}
        found = found_by(model, "integratedgradients", inputs, options=options).fused.values
        with torch.no_grad():
            moved = model.network(inputs) - model.network(torch.zeros_like(inputs))
        for b, target in enumerate(CLASSES):
            assert abs(found[b].sum() - moved[b, target]) <= 0.01 * moved[b, target].abs()


def test_guided_backpropagation() -> None:
    model = relu_network()
    network: Any = model.network
    for name in ("norm1", "norm2"):
        setattr(network, name, nn.Identity())
    network.conv1.bias = nn.Parameter(torch.linspace(-0.2, 0.2, 6), requires_grad=False)
    inputs = photographs(model.input_size)
    found = found_by(model, "guidedbackprop", inputs).fused.values
    both = found_by(model, "guided-gradcam", inputs, spec="act2").fused.values
    first, second = ((doubles(c.weight), doubles(c.bias)) for c in (network.conv1, network.conv2))
    for b, target in enumerate(CLASSES):
        row = doubles(network.fc.weight)[target]
        guided = reference.saliency.guidedbackprop(doubles(inputs[b]), first, second, row)
        assert_same(found[b], np.abs(guided).max(axis=0))
        (a,), (g,) = recorded(network, ["act2"], inputs[b], target)
        cam = reference.gradient.gradcam(doubles(a[0]), doubles(g[0]))
        assert_same(both[b], reference.saliency.guided_gradcam(guided, cam))


def test_methods_that_draw_draw_the_same_for_the_same_seed() -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 1)
    for name, m in METHODS.items():
        if "seed" not in m.options:
            continue
        few = {key: 3 for key in ("samples", "masks") if key in m.options}
        few |= {"channels": 4} if "channels" in m.options else {}
        few |= {"positive": False} if "positive" in m.options else {}

        def of(seed: int, name: str = name, few: dict[str, Any] = few) -> Tensor:
            options = {"seed": seed, **few}
            # The gradient of a last layer that is pooled is the same for any input.
            layer = "blocks.2" if METHODS[name].per_layer else None
            return found_by(model, name, inputs, [1], layer, options).fused.values

        assert torch.equal(of(7), of(7)), name
        assert not torch.equal(of(7), of(8)), name


# --- parts


@pytest.mark.parametrize(("key", "layer", "read"), [LAYERS[0], LAYERS[8]])
def test_dff(key: str, layer: str, read: Read) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size)
    options = {"concepts": 3, "steps": 40, "seed": 2}
    found = found_by(model, "dff", inputs, spec=layer, options=options)
    maps = torch.stack([part.values for part in found.parts], dim=1)
    assert torch.equal(found.fused.values, maps.amax(dim=1))
    for b, target in enumerate(CLASSES):
        (activation,), _ = recorded(model.network, [layer], inputs[b], target)
        a = read(activation)
        size = a.shape[1] * a.shape[2]
        drawn = doubles(create_uniform_noise((3, size + len(a)), 2)) + 0.1
        scale = np.sqrt(np.maximum(a, 0).mean() / 3)
        expected = reference.factorization.dff(
            a, drawn[:, :size].T * scale, drawn[:, size:] * scale, 40
        )
        for own, wanted in zip(maps[b], expected, strict=True):
            assert_same(own, wanted, 1e-3)


def test_dff_explains_as_much_as_another_solver() -> None:
    from sklearn.decomposition import NMF

    model = model_of("resnet")
    inputs = photographs(model.input_size, 1)
    (activation,), _ = recorded(model.network, ["layer3"], inputs[0], 1)
    v = np.maximum(doubles(activation[0]), 0).reshape(activation.shape[1], -1).T
    found = found_by(model, "dff", inputs, [1], "layer3", {"concepts": 4})
    maps = np.stack([doubles(part.values[0]).ravel() for part in found.parts], axis=1)
    parts = np.linalg.lstsq(maps, v, rcond=None)[0]
    with np.errstate(all="ignore"):
        peer = NMF(4, init="nndsvda", max_iter=2000, tol=1e-5).fit(v)
    assert np.linalg.norm(v - maps @ parts) <= 1.05 * peer.reconstruction_err_


def names(methods: Sequence[str]) -> list[str]:
    return [find_method(m).name for m in methods]


BLIND = ["eigencam", "kpcacam", "fem", "randomcam"]


def test_what_is_asked_of_the_class_and_what_is_not() -> None:
    blind = {name for name, m in METHODS.items() if not m.class_specific}
    assert blind == {*names([*BLIND, "attention", "rollout", "dff"])}
