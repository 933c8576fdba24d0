"""LRP on convolutional networks and DeepLIFT, against the reference and against their peers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import captum.attr
import numpy as np
import pytest
import reference
import timm
import torch
import torch.overrides
import torchvision
import zennit.composites
from conftest import lively, noise, small
from reference.maps import Doubles
from reference.relevance import How, Step, conv_matrix
from small_networks import assert_same, doubles, found_by, model_of, photographs
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck
from zennit.attribution import Gradient
from zennit.canonizers import NamedMergeBatchNorm
from zennit.torchvision import ResNetCanonizer, VGGCanonizer

from camcli.core.errors import CamcliError, MethodError
from camcli.core.types import Transform
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.providers.lrp_rules import COMPOSITES
from camcli.methods.registry import find_method
from camcli.models.model import Model, wrap_network

SIZE = (10, 14)
TARGETS = (1, 4)


class Branch(nn.Module):
    """x and what a branch makes of it, joined; written with functions, and partly in place."""

    def __init__(self, how: str, *inner: nn.Module) -> None:
        super().__init__()
        self.how, self.inner = how, nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        other: Tensor = self.inner(x)
        if self.how == "concat":
            return torch.cat([x, other], dim=1)
        if self.how == "gate":
            return x * other.sigmoid()[:, :, None, None]
        other += x
        return other


class Active(nn.Module):
    """An activation as a function, which is not a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def conv(inputs: int, outputs: int, side: int = 3, bias: bool = True, stride: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=bias)


def plain() -> list[nn.Module]:
    first = [conv(3, 4, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    return [*first, conv(4, 5, stride=2), nn.BatchNorm2d(5), nn.ReLU6(), Mean(), nn.Linear(5, 6)]


def residual() -> list[nn.Module]:
    act = nn.ReLU(inplace=True)  # one module, used again and again
    inner = (conv(4, 4), nn.BatchNorm2d(4), act, conv(4, 4, 1))
    return [conv(3, 4, stride=2), act, Branch("sum", *inner), act, Mean(), nn.Linear(4, 6)]


def dense() -> list[nn.Module]:
    act = Active(functional.relu)
    one = Branch("concat", nn.BatchNorm2d(4), act, conv(4, 3))
    return [conv(3, 4, stride=2), act, one, nn.BatchNorm2d(7), act, Mean(), nn.Linear(7, 6)]


def gated() -> list[nn.Module]:
    squeeze = (Mean(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 4))
    return [
        *(conv(3, 4, stride=2), nn.BatchNorm2d(4), nn.SiLU(), Branch("gate", *squeeze)),
        *(conv(4, 4), Active(functional.gelu), conv(4, 4, 1), nn.Hardswish(), Mean()),
        nn.Linear(4, 6),
    ]


NETWORKS = {"plain": plain, "residual": residual, "dense": dense, "gated": gated}


def with_history(network: nn.Module) -> nn.Module:
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data[0] *= -1  # a norm may turn a channel over
    return network


def made(key: str, biased: bool = True) -> Model:
    network = with_history(lively(nn.Sequential(*NETWORKS[key]()), seed=3))
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(0, 0.2 * biased, generator=torch.Generator().manual_seed(1))
    if not biased:
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean = torch.zeros(norm.num_features)
    return wrap_network(key, network, Transform(SIZE))


ACTIVATIONS: dict[type, Callable[[Doubles], Doubles]] = {
    nn.ReLU: lambda x: np.maximum(x, 0),
    nn.ReLU6: lambda x: np.clip(x, 0, 6),
    nn.SiLU: lambda x: x / (1 + np.exp(-x)),
    nn.Hardswish: lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


def activation(module: nn.Module) -> Callable[[Doubles], Doubles]:
    if not isinstance(module, Active):
        return ACTIVATIONS[type(module)]
    return lambda x: doubles(module.function(torch.from_numpy(x)))


def pooled(x: Doubles) -> Step:
    """The places of nn.MaxPool2d(3, 2)."""
    places = np.arange(x.size).reshape(x.shape)
    channels, height, width = x.shape
    shape = (channels, (height - 3) // 2 + 1, (width - 3) // 2 + 1)
    windows = [
        places[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].ravel() for c, i, j in np.ndindex(*shape)
    ]
    return ("maximum", windows, shape)


def steps_of(modules: Sequence[nn.Module], x: Doubles) -> list[Step]:
    """A network as the reference reads it; a norm after a convolution becomes part of it."""
    steps: list[Step] = []
    for before, module in zip([nn.Identity(), *modules], modules, strict=False):
        if isinstance(before, nn.Conv2d) and isinstance(module, nn.BatchNorm2d):
            steps[-1] = merged(steps[-1], *scale_and_shift(module))
        else:
            steps.append(step_of(module, reference.relevance._values(steps, x)[-1]))
    return steps


def step_of(module: Any, x: Doubles) -> Step:
    if isinstance(module, nn.BatchNorm2d):
        return ("norm", *scale_and_shift(module))
    if isinstance(module, nn.Conv2d):
        weight, stride = doubles(module.weight), module.stride[0]
        matrix = conv_matrix(weight, x.shape, stride, int(module.padding[0]))
        bias = np.zeros(len(weight)) if module.bias is None else doubles(module.bias)
        return (
            "affine",
            matrix,
            bias,
            (len(weight), *(-(-n // stride) for n in x.shape[1:])),
            "conv",
        )
    if isinstance(module, nn.Linear):
        bias = doubles(module.bias)
        return ("affine", doubles(module.weight), bias, bias.shape, "linear")
    if isinstance(module, Branch):
        return (module.how, branch_of(module, x))
    if isinstance(module, nn.MaxPool2d):
        return pooled(x)
    return ("mean",) if isinstance(module, Mean) else ("activation", activation(module))


def branch_of(branch: Branch, x: Doubles) -> list[Step]:
    inner = steps_of([*branch.inner], x)
    return [*inner, ("activation", sigmoid)] if branch.how == "gate" else inner


def sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def merged(step: Step, scale: Doubles, shift: Doubles) -> Step:
    """A convolution with the norm after it."""
    kind, matrix, bias, shape, layer = step
    rows = np.repeat(scale, shape[1] * shape[2])[:, None]
    return (kind, matrix * rows, bias * scale + shift, shape, layer)


def scale_and_shift(norm: Any) -> tuple[Doubles, Doubles]:
    scale = doubles(norm.weight) / np.sqrt(doubles(norm.running_var) + norm.eps)
    return scale, doubles(norm.bias) - doubles(norm.running_mean) * scale


def precisely(
    model: Model, method: str, inputs: Tensor, classes: Sequence[int], **options: Any
) -> Tensor:
    """camcli's maps of a network in double precision."""
    requests = plan_requests(model, [find_method(method)], options={method: options})
    targets = torch.tensor(classes)[:, None]
    model.network.double()
    try:
        found = explain_batch(model, inputs.double(), requests, lambda _: targets)
    finally:
        model.network.float()
    return found[0][0].fused.values


def signed(model: Model, inputs: Tensor, classes: Sequence[int], **options: Any) -> Tensor:
    """The sum of relevance over channels, from camcli's maps of both signs."""
    up, down = (
        precisely(model, "lrp", inputs, classes, **options, sign=sign)
        for sign in ("positive", "negative")
    )
    return up - down


MEAN, STD = (
    np.array(values)[:, None, None] for values in (Transform(SIZE).mean, Transform(SIZE).std)
)
BOX = (-MEAN / STD, (1 - MEAN) / STD)


@pytest.mark.parametrize("rule", COMPOSITES)
@pytest.mark.parametrize("key", NETWORKS)
def test_lrp(key: str, rule: str) -> None:
    model = made(key)
    inputs = photographs(SIZE, 2)
    found = signed(model, inputs, TARGETS, rule=rule, gamma=0.4, epsilon=0.01)
    modules: Any = model.network
    for b, target in enumerate(TARGETS):
        x = doubles(inputs[b])
        steps = steps_of([*modules], x)
        logits = reference.relevance._values(steps, x)[-1]
        assert logits[target] == pytest.approx(float(model.network(inputs)[b, target]), rel=1e-4)
        how = How(COMPOSITES[rule], 0.4, 0.01, BOX)
        expected = reference.relevance.lrp(steps, x, target, how)
        assert_same(found[b], expected.sum(axis=0))


@pytest.mark.parametrize(("key", "layer", "start"), [("plain", "2", 2), ("dense", "2", 3)])
def test_lrp_at_a_layer(key: str, layer: str, start: int) -> None:
    """The relevance of a layer's output is that of the next step's input."""
    model = made(key)
    inputs = photographs(SIZE, 2)
    found = found_by(model, "lrp", inputs, TARGETS, layer).fused.values
    modules: Any = model.network
    for b, target in enumerate(TARGETS):
        x = doubles(inputs[b])
        how = How(COMPOSITES["epsilon-plus"])
        steps = steps_of([*modules], x)
        expected = reference.relevance.lrp(steps, x, target, how, start).sum(axis=0)
        assert_same(found[b], np.maximum(expected, 0))


# zplus loses relevance where nothing positive goes in: at a negative summand or activation.
CONSERVED = [
    *((key, rule) for key in NETWORKS for rule in ("epsilon", "gamma")),
    *((key, rule) for key in ("plain", "dense") for rule in ("zplus", "epsilon-plus-flat")),
]


@pytest.mark.parametrize(("key", "rule"), CONSERVED)
def test_without_biases_relevance_sums_to_the_logit(key: str, rule: str) -> None:
    model = made(key, biased=False)
    inputs = photographs(SIZE, 2)
    total = signed(model, inputs, TARGETS, rule=rule, epsilon=1e-12).sum(dim=(1, 2))
    logits = model.network(inputs)[range(2), TARGETS]
    # Not less: all rules but epsilon move a sum by 1e-6, which counts where the sum is small.
    assert ((total - logits) / logits).abs().max() <= 2e-3


@pytest.mark.parametrize("key", NETWORKS)
def test_deeplift(key: str) -> None:
    model = made(key)
    inputs = photographs(SIZE, 2)
    options = {"absolute": False}
    found = found_by(model, "deeplift", inputs, TARGETS, options=options).fused.values
    modules: Any = model.network
    for b, target in enumerate(TARGETS):
        x = doubles(inputs[b])
        steps = steps_of([*modules], x)
        expected = reference.relevance.deeplift(steps, x, np.zeros(x.shape), target)
        assert_same(found[b], expected.sum(axis=0))


# --- peers


def with_exact_norms(network: nn.Module) -> nn.Module:
    """zennit keeps a merged norm's epsilon, so each norm divides by sqrt(1 + epsilon) once more."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-14
    return with_history(lively(network))


def densenet_norms(network: nn.Module) -> list[tuple[list[str], str]]:
    """The norms right after a convolution: zennit's own canonizer also merges others."""
    names = [n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)]
    pairs = [([n.replace("norm2", "conv1")], n) for n in names if n.endswith("norm2")]
    return [(["features.conv0"], "features.norm0"), *pairs]


def narrow_vgg() -> nn.Module:
    """Most of the weights of a VGG are in its linear layers."""
    network: nn.Module = torchvision.models.vgg11_bn()
    layers = (nn.Linear(512 * 49, 16), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(16, 10))
    network.classifier = nn.Sequential(*layers)
    return network


def short_resnet(block: type[BasicBlock | Bottleneck]) -> nn.Module:
    network: nn.Module = torchvision.models.ResNet(block, [2, 1, 1, 1], num_classes=10)
    return network


DENSE: dict[str, Any] = {"growth_rate": 8, "block_config": (2, 2, 2, 2), "num_classes": 10}
PEERS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Any]]] = {
    "vgg11": (lambda: narrow_vgg(), lambda _: VGGCanonizer()),
    "basic": (lambda: short_resnet(BasicBlock), lambda _: ResNetCanonizer()),
    "bottleneck": (lambda: short_resnet(Bottleneck), lambda _: ResNetCanonizer()),
    "densenet": (
        lambda: timm.create_model("densenet121", **DENSE),
        lambda network: NamedMergeBatchNorm(densenet_norms(network)),
    ),
}
COMPOSITE_NAMES = {
    "epsilon-plus": "EpsilonPlus",
    "epsilon-plus-flat": "EpsilonPlusFlat",
    "epsilon-alpha2-beta1": "EpsilonAlpha2Beta1",
    "epsilon-alpha2-beta1-flat": "EpsilonAlpha2Beta1Flat",
    "epsilon-gamma-box": "EpsilonGammaBox",
}


@pytest.mark.parametrize("rule", COMPOSITE_NAMES)
@pytest.mark.parametrize("key", PEERS)
def test_lrp_of_zennit(key: str, rule: str) -> None:
    make, canonizer = PEERS[key]
    network = with_exact_norms(make())
    model = wrap_network(key, network, Transform((32, 48)))
    inputs = noise(2, (32, 48))
    found = signed(model, inputs, TARGETS, rule=rule, gamma=0.25)
    peer = copy.deepcopy(model.network).double()
    options: dict[str, Any] = {"canonizers": [canonizer(peer)]}
    if rule == "epsilon-gamma-box":
        low, high = (torch.from_numpy(end)[None] for end in BOX)
        options |= {"low": low, "high": high}
    composite = getattr(zennit.composites, COMPOSITE_NAMES[rule])(**options)
    chosen = torch.eye(10).double()[list(TARGETS)]
    with Gradient(model=peer, composite=composite) as attribute:
        _, theirs = attribute(inputs.double(), attr_output=lambda logits: logits * chosen)
    # Not less: camcli's maps are in single precision.
    assert_same(found, doubles(theirs.sum(dim=1)), 1e-6)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require:UserWarning")
def test_deeplift_of_captum() -> None:
    """Without maxima: captum is not complete with more than one of them."""
    network = with_history(
        lively(timm.create_model("resnet18", num_classes=10, replace_stem_pool=True))
    )
    model = wrap_network("resnet18", network, Transform((64, 96)))
    inputs = noise(2, (64, 96))
    found = precisely(model, "deeplift", inputs, TARGETS, absolute=False)
    peer = copy.deepcopy(model.network).double()
    for module in peer.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    source = inputs.double()
    theirs = captum.attr.DeepLift(peer).attribute(
        source, torch.zeros_like(source), target=torch.tensor(TARGETS)
    )
    assert_same(found, doubles(theirs.sum(dim=1)))


COMPLETE: dict[str, dict[str, Any]] = {
    "resnet18": {},
    "densenet121": {"growth_rate": 8, "block_config": (2, 2, 2, 2)},
    "mobilenetv3_small_050": {},
    "test_efficientnet": {},
    "tf_efficientnet_lite0": {},
    "regnety_002": {},
    "inception_v3": {},
}


@pytest.mark.parametrize("name", COMPLETE)
def test_deeplift_sums_to_the_difference_of_logits(name: str) -> None:
    """With reused and functional activations, overlapping maxima, gates and concatenation."""
    size = (96, 96)
    network = with_history(timm.create_model(name, num_classes=10, **COMPLETE[name]))
    model = wrap_network(name, network, Transform(size))
    inputs = noise(2, size)
    found = precisely(model, "deeplift", inputs, TARGETS, absolute=False).sum(dim=(1, 2))
    exact = model.network.double()
    logits, before = exact(inputs.double()), exact(torch.zeros(1, 3, *size).double())
    expected = (logits - before)[range(2), TARGETS]
    assert ((found - expected) / expected).abs().max() <= 1e-3


@pytest.mark.parametrize("name", COMPLETE)
def test_lrp_works_on(name: str) -> None:
    network = with_history(timm.create_model(name, num_classes=10, **COMPLETE[name]))
    model = wrap_network(name, network, Transform((96, 96)))
    inputs = noise(2, (96, 96))
    for rule in ("auto", "epsilon-gamma-box", "epsilon-alpha2-beta1-flat"):
        options = {"rule": rule, "sign": "absolute"}
        found = found_by(model, "lrp", inputs, TARGETS, options=options).fused
        assert found.status_names == ["ok", "ok"]


# --- what they refuse


class Written(nn.Module):
    """A classifier around a function."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.function, self.conv = function, conv(3, 4)
        self.own, self.fc = nn.ModuleDict(modules), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.function(self, self.conv(x)).mean(dim=(2, 3)))
        return logits


def changes_in_place(_: Any, x: Tensor) -> Tensor:
    x.relu_()
    return x


def convolves_by_mean(_: Any, x: Tensor) -> Tensor:
    return functional.conv2d(x, x.mean(dim=(0, 2, 3)).view(4, 1, 1, 1), groups=4)


UNUSUAL: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "GroupNorm": (
        lambda: Written(lambda n, x: n.own["norm"](x), norm=nn.GroupNorm(2, 4)),
        "NativeGroupNorm",
    ),
    "batch norm of the batch": (
        lambda: Written(
            lambda n, x: n.own["norm"](x), norm=nn.BatchNorm2d(4, track_running_stats=False)
        ),
        "BatchNorm",
    ),
    "dynamic convolution": (lambda: Written(convolves_by_mean), "Convolution"),
    "powers": (lambda: Written(lambda _, x: x**2), "Pow"),
    "ratio": (lambda: Written(lambda _, x: x / (1 + x * x)), "Div"),
    "in place": (lambda: Written(changes_in_place), "in place"),
}


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
@pytest.mark.parametrize("key", UNUSUAL)
def test_other_networks_are_refused_in_words(method: str, key: str) -> None:
    make, word = UNUSUAL[key]
    model = wrap_network("unusual", lively(make()), Transform(SIZE))
    with pytest.raises(MethodError, match=f"{method} needs a network of .*; unusual has .*{word}"):
        plan_requests(model, [find_method(method)])


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_layer_norms_of_a_cnn_are_refused(method: str) -> None:
    with pytest.raises(MethodError, match="NativeLayerNorm"):
        plan_requests(small("test_convnext", 96, 128), [find_method(method)])


@pytest.mark.parametrize("options", [{"rule": "zplus"}, {"gamma": 0.1}, {"epsilon": 0.1}])
def test_a_transformer_takes_no_rule_of_cnns(options: dict[str, Any]) -> None:
    model = model_of("vit")
    with pytest.raises(MethodError, match="are for convolutional networks"):
        found_by(model, "lrp", photographs(model.input_size, 2), TARGETS, options=options)


@pytest.mark.parametrize("option", ["gamma", "epsilon"])
def test_negative_numbers_are_refused(option: str) -> None:
    with pytest.raises(CamcliError, match="must be 0 or more"):
        found_by(made("plain"), "lrp", photographs(SIZE, 2), TARGETS, options={option: -0.1})


@pytest.mark.parametrize("method", ["lrp", "deeplift"])
def test_no_rule_outlives_an_error(method: str) -> None:
    model = made("plain")
    with pytest.raises(RuntimeError):
        found_by(model, method, torch.zeros(1, 7, *SIZE), TARGETS[:1])
    assert not torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]


def test_pixels_are_shown_as_pixels() -> None:
    model = made("plain")
    (pixels,) = plan_requests(model, [find_method("lrp")])
    (layer,) = plan_requests(model, [find_method("lrp")], "2")
    assert (pixels.is_pixel_level, pixels.clip_quantile) == (True, 0.99)
    assert (layer.is_pixel_level, layer.clip_quantile) == (False, 1)
    assert pixels.layers[0].grid == SIZE
