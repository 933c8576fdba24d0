"""The same maps as grad-cam and torchcam, where these are right, on the same network objects.

camcli freezes the weights, so the peers would find no gradient. An input with requires_grad gives
them a graph, so that no weight is copied or changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from conftest import PHOTOS, small
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

from camcli.core.geometry import Float32Array, View, crop_visible_map
from camcli.core.maps import normalize_maps
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.io import images, transforms
from camcli.methods.registry import find_method
from camcli.models.model import Model, load_model

Reshape = Callable[[Tensor], Tensor]

SWIN = {"window_size": 4, "depths": (2, 2, 2, 2), "embed_dim": 32, "num_heads": (1, 2, 4, 8)}
# Sides differ wherever the network allows it: a map that is transposed must not pass.
NETWORKS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "vgg": ("vgg11", 224, 224, {"mlp_ratio": 0.02}),  # most of its weights are in one layer
    "resnet": ("resnet18", 96, 128, {}),
    "vit": ("vit_tiny_patch16_224", 96, 128, {}),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", 96, 128, {}),
    "swin": ("swin_tiny_patch4_window7_224", 128, 96, SWIN),
}


@cache
def model_of(key: str) -> Model:
    if key == "embedded":
        return load_model(device="cpu")
    name, height, width, options = NETWORKS[key]
    return small(name, height, width, **options)


def photographs(key: str) -> Tensor:
    """All of them for the network that knows what they show; two for those that do not."""
    model = model_of(key)
    pictures = [images.load_image(path) for path in PHOTOS[: None if key == "embedded" else 2]]
    transform = model.transform
    views = [transforms.compute_view(*picture.size, transform, "squash") for picture in pictures]
    pixels = [
        transforms.preprocess_image(p, view, transform)
        for p, view in zip(pictures, views, strict=True)
    ]
    return torch.from_numpy(np.stack(pixels))


def best(model: Model, inputs: Tensor) -> list[int]:
    """A class an image, and not only predicted ones: the k-th best of the k-th image."""
    with torch.no_grad():
        ranked = model.network(inputs).argsort(dim=1, descending=True)
    return [int(ranked[k, k]) for k in range(len(inputs))]


def ours(
    model: Model, method: str, inputs: Tensor, classes: Sequence[int], layer: str | None
) -> BatchExplanation:
    targets = torch.tensor(classes)[:, None]
    return explain_batch(
        model, inputs, plan_requests(model, [find_method(method)], layer), lambda _: targets
    )[0][0]


def nlc(prefix: int, rows: int, cols: int) -> Reshape:
    return lambda x: x[:, prefix:].reshape(len(x), rows, cols, -1).permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


LAYERS: list[tuple[str, str, Reshape | None]] = [
    ("embedded", "bn2", None),
    ("embedded", "blocks.4", None),
    ("embedded", "blocks.1", None),
    ("vgg", "features.20", None),
    ("vgg", "features.10", None),
    ("resnet", "layer4", None),
    ("resnet", "layer2", None),
    ("vit", "blocks.11.norm1", nlc(1, 6, 8)),
    ("vit", "blocks.6", nlc(1, 6, 8)),
    ("deit, distilled", "blocks.11.norm1", nlc(2, 6, 8)),
    ("swin", "norm", nhwc),
    ("swin", "layers.1", nhwc),
]


def grad_cam(
    kind: str,
    model: Model,
    layer: str,
    reshape: Reshape | None,
    inputs: Tensor,
    classes: Sequence[int],
) -> Float32Array:
    peer = getattr(pytorch_grad_cam, kind)(
        model.network, [model.network.get_submodule(layer)], reshape
    )
    try:
        maps: Float32Array = peer(
            inputs.clone().requires_grad_(), [ClassifierOutputTarget(c) for c in classes]
        )
    finally:
        peer.activations_and_grads.release()
    return maps


def torch_cam(
    kind: str,
    model: Model,
    layer: str,
    reshape: Reshape | None,
    inputs: Tensor,
    classes: Sequence[int],
    **options: Any,
) -> Tensor:
    """The raw maps: with normalisation off, torchcam's are those of the formula."""
    with getattr(torchcam.methods, kind)(
        model.network, layer, reshape_transform=reshape, **options
    ) as peer:
        scores = model.network(inputs.clone().requires_grad_())
        maps: Tensor = peer(list(classes), scores, normalized=False)[0]
    return maps


def shown(values: Tensor, size: tuple[int, int]) -> Float32Array:
    """As camcli shows a map of a whole image of the input's size."""
    view = View(size[1], size[0], 0, 0, size[1], size[0])
    return np.stack([crop_visible_map(m.numpy(), view, size) for m in normalize_maps(values)])


RIGHT = [
    ("gradcam", "GradCAM"),
    ("layercam", "LayerCAM"),
    ("hirescam", "HiResCAM"),
    ("gradcam-elementwise", "GradCAMElementWise"),
]


@pytest.mark.parametrize(("method", "kind"), RIGHT)
@pytest.mark.parametrize(("key", "layer", "reshape"), LAYERS)
def test_grad_cam(method: str, kind: str, key: str, layer: str, reshape: Reshape | None) -> None:
    model = model_of(key)
    inputs = photographs(key)
    classes = best(model, inputs)
    values = ours(model, method, inputs, classes, layer).fused.values
    theirs = grad_cam(kind, model, layer, reshape, inputs, classes)
    # Not less: OpenCV and Pillow upsample in single precision each, and it divides by max + 1e-7.
    assert np.abs(shown(values, model.input_size) - theirs).max() <= 1e-4
    assert theirs.max() > 0.99  # relu may leave nothing of one random map, but not of all


@pytest.mark.parametrize(("method", "kind"), [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
@pytest.mark.parametrize(("key", "layer", "reshape"), LAYERS)
def test_torchcam(method: str, kind: str, key: str, layer: str, reshape: Reshape | None) -> None:
    model = model_of(key)
    inputs = photographs(key)
    classes = best(model, inputs)
    values = ours(model, method, inputs, classes, layer).fused.values
    theirs = torch_cam(kind, model, layer, reshape, inputs, classes)
    for found, wanted in zip(values, theirs, strict=True):
        assert (found - wanted).abs().max() <= 1e-5 * wanted.max()
    assert theirs.max() > 0  # relu may leave nothing of one random map, but not of all


@pytest.mark.parametrize("layer", ["features.20", "features.10"])
def test_xgradcam_after_a_relu(layer: str) -> None:
    """Where activations cancel, grad-cam divides by next to nothing; after a ReLU they do not."""
    model = model_of("vgg")
    inputs = photographs("vgg")
    classes = best(model, inputs)
    values = ours(model, "xgradcam", inputs, classes, layer).fused.values
    theirs = grad_cam("XGradCAM", model, layer, None, inputs, classes)
    assert np.abs(shown(values, model.input_size) - theirs).max() <= 1e-3


@pytest.mark.parametrize(
    ("key", "layer", "classifier"),
    [("embedded", "bn2", "classifier"), ("resnet", "layer4", "fc")],
)
def test_torchcam_cam(key: str, layer: str, classifier: str) -> None:
    model = model_of(key)
    inputs = photographs(key)
    classes = best(model, inputs)
    values = ours(model, "cam", inputs, classes, None).fused.values
    theirs = torch_cam("CAM", model, layer, None, inputs, classes, fc_layer=classifier)
    assert (values - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert (theirs < 0).any()  # neither has a relu
