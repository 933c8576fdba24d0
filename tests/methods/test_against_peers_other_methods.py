"""The same maps as grad-cam, torchcam and captum, for methods that test_against_peers lacks.

Methods that a peer computes wrongly are not compared: torchcam's Smooth Grad-CAM++ takes A and
relu(g) of its last sample alone. Where activations may be negative, grad-cam's Ablation-CAM writes
-1e7, and its XGrad-CAM divides by almost 0.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import captum.attr
import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
import torchcam.methods
import torchvision
from conftest import PHOTOS, lively, small
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from test_against_peers import Reshape, best, nlc, torch_cam
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camcli.core.geometry import Float32Array
from camcli.core.maps import normalize_maps, normalize_tensor
from camcli.core.rng import create_normal_noise
from camcli.core.types import Transform
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.io import images, transforms
from camcli.methods.registry import find_method
from camcli.models.model import Model, wrap_network

# The sides of "odd" are 31 times those of layer4's map: an odd factor puts a pixel on each centre,
# so it is the same whether a mask is min-maxed before it is enlarged, as torchcam does, or after.
NETWORKS: dict[str, tuple[str, int, int]] = {
    "resnet": ("test_resnet", 96, 128),
    "odd": ("test_resnet", 93, 124),
    "silu": ("test_efficientnet", 96, 128),
    "vit": ("test_vit", 96, 128),
}
VIT = nlc(1, 6, 8)


@cache
def model_of(key: str) -> Model:
    return small(*NETWORKS[key])


@cache
def photographs(size: tuple[int, int]) -> Tensor:
    transform = Transform(size)
    pictures = [images.load_image(path) for path in PHOTOS[:2]]
    views = [transforms.compute_view(*picture.size, transform, "squash") for picture in pictures]
    pixels = [
        transforms.preprocess_image(p, view, transform)
        for p, view in zip(pictures, views, strict=True)
    ]
    return torch.from_numpy(np.stack(pixels))


@cache
def seen(key: str) -> tuple[Model, Tensor, list[int]]:
    """A network, what it is shown, and a class an image."""
    model = model_of(key)
    inputs = photographs(model.input_size)
    return model, inputs, best(model, inputs)


def ours(
    method: str,
    model: Model,
    inputs: Tensor,
    classes: Sequence[int],
    layer: str | None = None,
    **options: Any,
) -> Tensor:
    requests = plan_requests(model, [find_method(method)], layer, options={method: options})
    targets = torch.tensor(classes)[:, None]
    return explain_batch(model, inputs, requests, lambda _: targets)[0][0].fused.values


@contextmanager
def grad_cam(
    kind: str, model: Model, layers: Sequence[str], reshape: Reshape | None = None
) -> Iterator[Any]:
    """A peer that keeps its map as it was before relu, min-max and enlargement: `raw`."""

    class Kept(getattr(pytorch_grad_cam, kind)):  # type: ignore[misc]
        def get_cam_image(self, *of: Any) -> Float32Array:
            found = self.weighed if kind == "ShapleyCAM" else super().get_cam_image
            self.raw: Float32Array = found(*of)
            return self.raw

        # grad-cam weighs tokens as they are, not as a map, and raises for them.
        def weighed(self, inputs: Tensor, layer: nn.Module, targets: Any, *of: Any) -> Float32Array:
            activations, gradients, _ = of
            weights = self.get_cam_weights(inputs, layer, targets, activations, gradients)
            maps = activations if reshape is None else reshape(activations)
            found: Float32Array = np.einsum("bk,bkij->bij", weights, maps.detach().numpy())
            return found

    found = Kept(model.network, [model.network.get_submodule(name) for name in layers], reshape)
    try:
        yield found
    finally:
        # It would detach them in place, which views refuse.
        found.activations_and_grads.activations = []
        found.activations_and_grads.gradients = []
        found.activations_and_grads.release()


def raw_grad_cam(
    kind: str,
    key: str,
    layer: str,
    reshape: Reshape | None = None,
) -> Tensor:
    model, inputs, classes = seen(key)
    with grad_cam(kind, model, [layer], reshape) as peer:
        peer(inputs.clone().requires_grad_(), [ClassifierOutputTarget(c) for c in classes])
        return torch.from_numpy(np.asarray(peer.raw, np.float32))


def correlation(one: Tensor, other: Tensor) -> float:
    return min(
        float(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1])
        for a, b in zip(one, other, strict=True)
    )


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of any image, as a share of the largest value that is wanted of it."""
    scale = wanted.abs().amax(dim=(1, 2))
    assert (scale > 0).all()
    return float(((found - wanted).abs().amax(dim=(1, 2)) / scale).max())


LAYERS: list[tuple[str, str, Reshape | None]] = [
    ("resnet", "layer4", None),
    ("resnet", "layer2", None),
    ("silu", "blocks.2", None),
    ("vit", "blocks.3", VIT),
    ("vit", "blocks.5.norm1", VIT),
]


@pytest.mark.parametrize(
    ("method", "kind"),
    [("eigencam", "EigenCAM"), ("eigengradcam", "EigenGradCAM"), ("kpcacam", "KPCA_CAM")],
)
@pytest.mark.parametrize(("key", "layer", "reshape"), LAYERS)
def test_components(method: str, kind: str, key: str, layer: str, reshape: Reshape | None) -> None:
    """Up to the sign, which grad-cam leaves to chance; ours goes with the sum over channels."""
    values = ours(method, *seen(key), layer)
    theirs = raw_grad_cam(kind, key, layer, reshape)
    for found, wanted in zip(values, theirs, strict=True):
        differences = [apart(found[None], (sign * wanted).relu()[None]) for sign in (1, -1)]
        # Not less: grad-cam's projection is in single precision, ours in double.
        assert min(differences) <= 1e-4


@pytest.mark.parametrize("k", [1.0, 2.0])
@pytest.mark.parametrize(("key", "layer", "reshape"), LAYERS)
def test_fem(key: str, layer: str, reshape: Reshape | None, k: float) -> None:
    values = ours("fem", *seen(key), layer, k=k)
    model, inputs, classes = seen(key)
    with grad_cam("FEM", model, [layer], reshape) as peer:
        peer.k = k
        peer(inputs, [ClassifierOutputTarget(c) for c in classes])
    theirs = torch.from_numpy(peer.raw).relu()
    # Not less: sums over channels in single precision, in another order.
    assert apart(values, theirs) <= 1e-6


@pytest.mark.parametrize(
    ("key", "layer", "reshape", "curved"),
    [
        ("vit", "blocks.3", VIT, True),
        ("vit", "blocks.5.norm1", VIT, True),
        ("vit", "blocks.0", VIT, True),
        ("silu", "blocks.2", None, True),
        ("silu", "blocks.4", None, True),
        ("resnet", "layer2", None, False),
    ],
)
def test_shapleycam(key: str, layer: str, reshape: Reshape | None, curved: bool) -> None:
    values = ours("shapleycam", *seen(key), layer)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels can be differentiated once only
        theirs = raw_grad_cam("ShapleyCAM", key, layer, reshape).relu()
    # Not less: the second derivative is in single precision.
    assert apart(values, theirs) <= 1e-5
    assert (apart(ours("gradcam", *seen(key), layer), theirs) > 1e-2) == curved


SCORED = [("layer4", "odd"), ("layer2", "odd"), ("layer1", "resnet")]


def enlarged(size: tuple[int, int]) -> nn.Module:
    return nn.Upsample(size, mode="bilinear")


@pytest.mark.parametrize(("layer", "key"), SCORED)
def test_scorecam_of_grad_cam(layer: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its masks enlarged as images are: its own are moved by up to half a cell.

    By itself it correlates with ours, and with the paper's, by 0.98 on maps of 3 x 4.
    """
    monkeypatch.setattr(nn, "UpsamplingBilinear2d", enlarged)
    values = normalize_maps(ours("scorecam", *seen(key), layer, weights="softmax"))
    theirs = normalize_maps(raw_grad_cam("ScoreCAM", key, layer).relu())
    # Not less: logits, which softmax takes to the power, are in single precision.
    assert apart(values, theirs) <= 1e-4


class Fields:
    """In the place of torchcam's noise: camcli's fields, each the same for every channel."""

    def __init__(self, fields: Tensor) -> None:
        self.left = iter(fields)

    def sample(self, size: torch.Size) -> Tensor:
        field: Tensor = next(self.left)
        return field.expand(size)


SCORES = pytest.mark.parametrize(
    ("method", "kind", "options"),
    [
        ("scorecam", "ScoreCAM", {}),
        ("iscam", "ISCAM", {"steps": 3}),
        ("sscam", "SSCAM", {"samples": 2, "noise": 0.5, "seed": 7}),
    ],
)


def scored_by_torchcam(
    kind: str, options: dict[str, Any], layer: str, key: str, *, after: bool
) -> Tensor:
    """Min-maxed once more `after` masks are enlarged, as the papers' equations have it; or not."""
    model, inputs, classes = seen(key)
    with getattr(torchcam.methods, kind)(model.network, layer) as peer:
        if kind == "ISCAM":
            peer.num_samples = options["steps"]
        if kind == "SSCAM":
            peer.num_samples = options["samples"]
            shape = (options["samples"], *model.input_size)
            peer._distrib = Fields(options["noise"] * create_normal_noise(shape, options["seed"]))
        enlarge = enlarged(model.input_size)
        if after:
            peer._upsample = lambda masks: normalize_tensor(enlarge(masks), (2, 3))
        with torch.no_grad():
            model.network(inputs)
            maps: Tensor = peer(classes, normalized=False)[0]
    shown: Tensor = normalize_maps(maps)
    return shown


@SCORES
@pytest.mark.parametrize(("layer", "key", "after"), [(*at, at[0] != "layer4") for at in SCORED])
def test_scored_masks_of_torchcam(
    method: str, kind: str, options: dict[str, Any], layer: str, key: str, after: bool
) -> None:
    values = normalize_maps(ours(method, *seen(key), layer, weights="softmax", **options))
    theirs = scored_by_torchcam(kind, options, layer, key, after=after)
    # Not less: logits, which softmax takes to the power, are in single precision.
    assert apart(values, theirs) <= 1e-4


@SCORES
def test_scored_masks_of_torchcam_as_it_is(method: str, kind: str, options: dict[str, Any]) -> None:
    values = ours(method, *seen("odd"), "layer2", weights="softmax", **options)
    theirs = scored_by_torchcam(kind, options, "layer2", "odd", after=False)
    # Not more: it does not min-max its masks once enlarged, where an even factor misses the peaks.
    assert correlation(values, theirs) >= 0.999


@pytest.mark.parametrize("layer", ["act1", "layer1", "layer2", "layer3", "layer4"])
def test_xgradcam_of_torchcam(layer: str) -> None:
    """After a ReLU, where no channel cancels."""
    values = ours("xgradcam", *seen("resnet"), layer)
    model, inputs, classes = seen("resnet")
    theirs = torch_cam("XGradCAM", model, layer, None, inputs, classes)
    # Not less: sums in single precision, in another order on other processors.
    assert apart(values, theirs) <= 1e-5


@pytest.mark.parametrize("layer", ["act1", "layer2", "layer3", "layer4"])
def test_ablationcam(layer: str) -> None:
    """After a ReLU, for elsewhere grad-cam ablates to -1e7, and for positive scores."""
    model, inputs, _ = seen("resnet")
    logits = model.network(inputs)
    classes = logits.argmax(dim=1).tolist()
    assert (logits.amax(dim=1) > 0).all()
    values = ours("ablationcam", model, inputs, classes, layer)
    with grad_cam("AblationCAM", model, [layer]) as peer:
        peer(inputs, [ClassifierOutputTarget(c) for c in classes])
    # Not less: a weight is a small difference of two logits in single precision.
    assert apart(values, torch.from_numpy(peer.raw).relu()) <= 1e-4


@pytest.mark.parametrize("key", ["resnet", "odd"])
def test_fullgrad(key: str) -> None:
    model, inputs, classes = seen(key)
    values = ours("fullgrad", model, inputs, classes, each="channel")
    with grad_cam("FullGrad", model, []) as peer:
        theirs = peer(inputs.clone(), [ClassifierOutputTarget(c) for c in classes])
    # Not less: OpenCV upsamples in single precision, and it divides by max + 1e-7.
    assert apart(normalize_maps(values), torch.from_numpy(theirs)) <= 1e-4


def as_timm(peer: Any, **options: Any) -> nn.Module:
    """The same weights in timm's transformer."""
    network = timm.create_model("vit_tiny_patch16_224", **options)
    state = peer.state_dict()
    renamed = {
        "cls_token": state["class_token"],
        "pos_embed": state["encoder.pos_embedding"],
        **{f"patch_embed.proj.{w}": state[f"conv_proj.{w}"] for w in ("weight", "bias")},
        **{f"norm.{w}": state[f"encoder.ln.{w}"] for w in ("weight", "bias")},
        **{f"head.{w}": state[f"heads.head.{w}"] for w in ("weight", "bias")},
    }
    inner = {
        "norm1.": "ln_1.",
        "attn.qkv.": "self_attention.in_proj_",
        "attn.proj.": "self_attention.out_proj.",
        "norm2.": "ln_2.",
        "mlp.fc1.": "mlp.0.",
        "mlp.fc2.": "mlp.3.",
    }
    for n in range(len(peer.encoder.layers)):
        for name, theirs in inner.items():
            for w in ("weight", "bias"):
                own = state[f"encoder.layers.encoder_layer_{n}.{theirs}{w}"]
                renamed[f"blocks.{n}.{name}{w}"] = own
    network.load_state_dict(renamed)
    return network


@pytest.mark.parametrize(("depth", "hidden", "heads"), [(2, 48, 3), (3, 32, 2)])
def test_legrad(depth: int, hidden: int, heads: int) -> None:
    peer = torchvision.models.VisionTransformer(32, 8, depth, heads, hidden, 96, num_classes=10)
    lively(peer).eval().requires_grad_(False)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": hidden, "depth": depth}
    network = as_timm(peer, **sizes, num_heads=heads, mlp_ratio=96 / hidden, num_classes=10)
    model = wrap_network("torchvision's", network, Transform((32, 32)))
    inputs = photographs((32, 32))
    logits = peer(inputs)
    # Not less: two implementations of attention, in single precision.
    assert (model.network(inputs) - logits).abs().max() <= 1e-5 * logits.abs().max()
    classes = best(model, inputs)
    values = ours("legrad", model, inputs, classes)
    with torchcam.methods.LeGrad(peer, list(peer.encoder.layers)) as legrad:
        scores = peer(inputs)
        theirs = depth * legrad(classes, scores, normalized=False)[0]  # it takes the mean of blocks
    # Not less: two implementations of attention, in single precision.
    assert apart(values, theirs) <= 1e-5


def colours(attributions: Tensor) -> Tensor:
    return attributions.abs().amax(dim=1)


KEYS = ["resnet", "silu", "vit"]


@pytest.mark.parametrize("key", KEYS)
def test_gradients_of_the_input(key: str) -> None:
    model, inputs, classes = seen(key)
    source = inputs.clone().requires_grad_()
    slope = captum.attr.Saliency(model.network).attribute(source, target=classes)
    product = captum.attr.InputXGradient(model.network).attribute(source, target=classes)
    # Not less: sums in single precision, in another order on other processors.
    assert apart(ours("saliency", model, inputs, classes), colours(slope)) <= 1e-5
    theirs = product.detach().sum(dim=1).abs()
    assert apart(ours("inputxgradient", model, inputs, classes), theirs) <= 1e-5


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("key", KEYS)
def test_integratedgradients(key: str, steps: int) -> None:
    model, inputs, classes = seen(key)
    peer = captum.attr.IntegratedGradients(model.network)
    theirs = peer.attribute(inputs, target=classes, n_steps=steps).sum(dim=1)
    values = ours("integratedgradients", model, inputs, classes, steps=steps, absolute=False)
    # Not less: it sums over steps in double precision.
    assert apart(values, theirs.float()) <= 1e-5


@pytest.mark.parametrize("key", KEYS)
def test_smoothgrad(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With camcli's own noise in the place of torch.normal; an image at a time, for its range."""
    model, inputs, classes = seen(key)
    values = ours("smoothgrad", model, inputs, classes, samples=4, noise=0.15, seed=3)
    peer = captum.attr.NoiseTunnel(captum.attr.Saliency(model.network))
    for one, target, found in zip(inputs, classes, values, strict=True):
        generator = torch.Generator().manual_seed(3)
        fields = torch.stack([torch.randn(one.shape, generator=generator) for _ in range(4)])
        monkeypatch.setattr(torch, "normal", lambda _mean, std, fields=fields: std * fields)
        theirs = peer.attribute(
            one[None].clone().requires_grad_(),
            nt_samples=4,
            stdevs=0.15 * float(one.max() - one.min()),
            target=target,
            abs=False,
        )
        # Not less: all samples are one batch there, summed in another order.
        assert apart(found[None], colours(theirs)) <= 1e-5


@cache
def out_of_place(key: str) -> nn.Module:
    """Backward hooks, captum's way, bear no ReLU that changes its input."""
    network = copy.deepcopy(model_of(key).network)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


# captum says so of every run.
HOOKS = pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU:UserWarning")


@HOOKS
@pytest.mark.parametrize("key", ["resnet", "odd"])
def test_guidedbackprop(key: str) -> None:
    model, inputs, classes = seen(key)
    peer = captum.attr.GuidedBackprop(out_of_place(key))
    theirs = peer.attribute(inputs.clone().requires_grad_(), target=classes)
    values = ours("guidedbackprop", model, inputs, classes)
    # Not less: sums in single precision, in another order on other processors.
    assert apart(values, colours(theirs)) <= 1e-5


@HOOKS
@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
def test_guided_gradcam(layer: str) -> None:
    model, inputs, classes = seen("resnet")
    network = out_of_place("resnet")
    peer = captum.attr.GuidedGradCam(network, network.get_submodule(layer))
    source = inputs.clone().requires_grad_()
    theirs = peer.attribute(source, target=classes, interpolate_mode="bilinear")
    values = ours("guided-gradcam", model, inputs, classes, layer)
    # Not less: sums in single precision, in another order on other processors.
    assert apart(values, colours(theirs.detach())) <= 1e-5


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("window", "stride"), [(32, 16), (32, 32), (64, 32)])
def test_occlusion(key: str, window: int, stride: int) -> None:
    """Where the squares end at the border: elsewhere captum's last ones stick out."""
    model, inputs, classes = seen(key)
    peer = captum.attr.Occlusion(nn.Sequential(model.network, nn.Softmax(dim=1)))
    theirs = peer.attribute(
        inputs,
        target=classes,
        sliding_window_shapes=(3, window, window),
        strides=(3, stride, stride),
        perturbations_per_eval=8,
    )
    values = ours("occlusion", model, inputs, classes, window=window, stride=stride)
    # Not less: the lost share of a probability near 1 is a difference of two such.
    assert (values - theirs[:, 0].relu()).abs().max() <= 1e-4 * theirs.abs().max()
    assert theirs.max() > 0
