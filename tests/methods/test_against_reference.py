"""Gradient methods, CAM and TS-CAM against the reference, on tensors that the tests record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference.maps import Doubles, minmax
from small_networks import (
    CLASSES,
    LAYERS,
    Read,
    assert_same,
    channels_first,
    channels_last,
    doubles,
    found_by,
    model_of,
    outputs_of,
    photographs,
    recorded,
    tokens,
)
from torch import Tensor, nn

from camcli.engine.postprocess import BatchExplanation
from camcli.methods.registry import METHODS
from camcli.models.introspection import heads
from camcli.models.model import load_model

GRADIENT = [
    name
    for name, m in METHODS.items()
    if m.input_names == ("activations", "gradients") and m.family == "gradient"
]


# Of this layer's patches only the next block's LayerNorm reaches CLS: gradient times token is 0.
ORTHOGONAL = {("hirescam", "blocks.10")}


def reference_of(method: str) -> Callable[..., Doubles]:
    name = METHODS[method].function.__name__
    found = getattr(reference.gradient, name, None)
    assert found, f"write the second implementation: tests/reference/gradient.py: {name}"
    version: Callable[..., Doubles] = found
    return version


@pytest.mark.parametrize("method", GRADIENT)
@pytest.mark.parametrize(("key", "layer", "read"), LAYERS)
def test_gradient_methods(method: str, key: str, layer: str, read: Read) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size)
    found = found_by(model, method, inputs, spec=layer)
    expected = []
    for image, target in zip(inputs, CLASSES, strict=True):
        (activation,), (gradient,) = recorded(model.network, [layer], image, target)
        version = reference_of(method)
        expected.append(version(read(activation), read(gradient)))
    for values, wanted in zip(found.fused.values, expected, strict=True):
        assert_same(values, wanted)
    # relu may leave nothing of one random map, but not of all; unless there is nothing to find.
    assert any(np.ptp(wanted) > 0 for wanted in expected) != ((method, layer) in ORTHOGONAL)


STAGES: list[tuple[str, str, list[str], Read]] = [
    ("resnet", "all", ["act1", *(f"layer{n}" for n in (1, 2, 3, 4))], channels_first),
    ("vgg", "stage1..5", [f"features.{n}" for n in (2, 5, 10, 15, 20)], channels_first),
    ("swin", "stage1..4", [f"layers.{n}" for n in range(4)], channels_last),
]


@pytest.mark.parametrize(("key", "spec", "names", "read"), STAGES)
def test_layercam_over_several_layers(key: str, spec: str, names: list[str], read: Read) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 1)
    found = found_by(model, "layercam", inputs, CLASSES[:1], spec)
    activations, gradients = recorded(model.network, names, inputs[0], CLASSES[0])
    raw = [
        reference.gradient.layercam(read(a), read(g))
        for a, g in zip(activations, gradients, strict=True)
    ]
    assert [maps.name for maps in found.layers] == names
    for maps, wanted in zip(found.layers, raw, strict=True):
        assert_same(maps.values[0], wanted)
        assert_same(
            maps.shown[0],
            reference.gradient.layercam_scaled(wanted, model.input_size[0] / len(wanted)),
        )
    fused = reference.gradient.layercam_fused(raw, model.input_size)
    assert_same(found.fused.values[0], fused)
    assert_same(found.fused.shown[0], minmax(fused))
    # Layers with nothing to add would leave the maximum untested.
    assert sum(np.ptp(m) > 0 for m in raw) > 1


def linear(network: nn.Module, names: Sequence[str], target: int) -> tuple[Doubles, float]:
    """A class's weights and bias, averaged over the classifiers that the network averages."""
    layers: list[Any] = [network.get_submodule(name) for name in names]
    weights = [doubles(layer.weight)[target] for layer in layers]
    biases = [float(layer.bias[target]) for layer in layers]
    return sum(weights, np.zeros_like(weights[0])) / len(layers), sum(biases) / len(biases)


def semantic(
    network: nn.Module, names: Sequence[str], norm: str | None, features: Doubles, target: int
) -> tuple[Doubles, float]:
    """CAM of one class, and the bias that it leaves out."""
    weight, bias = linear(network, names, target)
    if norm is None:
        return reference.cam.cam(features, weight), bias
    layer: Any = network.get_submodule(norm)
    gamma, beta = doubles(layer.weight), doubles(layer.bias)
    return reference.cam.cam_through_norm(features, weight, gamma, layer.eps), bias + float(
        weight @ beta
    )


# The map that is pooled, how to read it, the classifiers, and a LayerNorm before them.
HEADS: dict[str, tuple[str, Read, list[str], str | None]] = {
    "resnet": ("layer4", channels_first, ["fc"], None),
    "efficientnet": ("bn2", channels_first, ["classifier"], None),
    "convnext": ("stages.3", channels_first, ["head.fc"], "head.norm"),
    "swin": ("norm", channels_last, ["head.fc"], None),
    "vit": ("norm", tokens(1, 6, 8), ["head"], None),
    "vit, queries and keys normed": ("norm", tokens(1, 6, 8), ["head"], None),
    "vit, patches pooled": ("norm", tokens(1, 6, 8), ["head"], None),
    "vit, no CLS but a register": ("blocks.7", tokens(1, 6, 8), ["head"], "fc_norm"),
    "vit, relative positions": ("blocks.8", tokens(0, 6, 8), ["head"], "fc_norm"),
    "deit, distilled": ("norm", tokens(2, 14, 14), ["head", "head_dist"], None),
    "vit, 160x224": ("norm", tokens(1, 10, 14), ["head"], None),
}


@pytest.mark.parametrize("key", HEADS)
def test_cam(key: str) -> None:
    layer, read, classifiers, norm = HEADS[key]
    model = model_of(key)
    inputs = photographs(model.input_size)
    found = found_by(model, "cam", inputs).fused
    for b, target in enumerate(CLASSES):
        (features,), _ = recorded(model.network, [layer], inputs[b], target)
        expected, _ = semantic(model.network, classifiers, norm, read(features), target)
        assert_same(found.values[b], expected)
        assert_same(found.shown[b], minmax(expected))


POOLED = ["resnet", "efficientnet", "convnext", "swin"]
POOLED += ["vit, patches pooled", "vit, no CLS but a register", "vit, relative positions"]


@pytest.mark.parametrize("key", POOLED)
def test_the_mean_of_a_class_map_is_the_logit(key: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size)
    head = heads.find_head(model.network, model.layers, model.input_size, len(model.labels.names))
    assert head is not None
    assert head.exact
    with outputs_of(model.network, [head.layer.name]) as kept:
        logits = model.network(inputs)
    for target in range(logits.shape[1]):
        classes = [target] * len(inputs)
        score = torch.eye(logits.shape[1])[classes]
        _, bias = heads.compute_semantic_map(head, kept[head.layer.name], score)
        values = found_by(model, "cam", inputs, classes).fused.values
        assert_same(values.mean(dim=(1, 2)) + bias, doubles(logits[:, target]))


def softmax(scores: Doubles) -> Doubles:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    normed: Doubles = powers / powers.sum(axis=-1, keepdims=True)
    return normed


def normed(x: Doubles, layer: Any) -> Doubles:
    if isinstance(layer, nn.Identity):
        return x
    centred = x - x.mean(axis=-1, keepdims=True)
    sigma = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + layer.eps)
    result: Doubles = centred / sigma * doubles(layer.weight) + doubles(layer.bias)
    return result


def matrix(attention: Any, x: Doubles) -> Doubles:
    """A block's softmax attention (heads, N, N), from the tokens that enter it (N, C)."""
    count, width = x.shape
    of_a_head = width // attention.num_heads
    projected = x @ doubles(attention.qkv.weight).T
    if attention.qkv.bias is not None:
        projected = projected + doubles(attention.qkv.bias)
    matrices = []
    for h in range(attention.num_heads):
        start = h * of_a_head
        q = normed(projected[:, start : start + of_a_head], attention.q_norm)
        k = normed(projected[:, width + start : width + start + of_a_head], attention.k_norm)
        bias = np.zeros((count, count))
        if getattr(attention, "rel_pos", None) is not None:
            bias = doubles(attention.rel_pos.get_bias()[0, h])
        matrices.append(softmax(q @ k.T / np.sqrt(of_a_head) + bias))
    return np.stack(matrices)


VITS = {  # prefix tokens, and whether there is a CLS token among them
    "vit": (1, True),
    "vit, queries and keys normed": (1, True),
    "vit, patches pooled": (1, True),
    "vit, no CLS but a register": (1, False),
    "vit, relative positions": (0, False),
    "deit, distilled": (2, True),
    "vit, 160x224": (1, True),
}


@pytest.mark.parametrize("key", VITS)
def test_tscam_on_a_plain_transformer(key: str) -> None:
    layer, read, classifiers, norm = HEADS[key]
    prefix, cls = VITS[key]
    model = model_of(key)
    network: Any = model.network
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "tscam", inputs, CLASSES[:2])
    names = [f"blocks.{n}.norm1" for n in range(len(network.blocks))]
    for b, target in enumerate(CLASSES[:2]):
        (features, *entering), _ = recorded(network, [layer, *names], inputs[b], target)
        values, bias = semantic(network, classifiers, norm, read(features), target)
        matrices = [
            matrix(block.attn, doubles(x[0]))
            for block, x in zip(network.blocks, entering, strict=True)
        ]
        assert_tscam(found, b, matrices, values + bias, prefix, cls)


def assert_tscam(
    found: BatchExplanation,
    b: int,
    matrices: Sequence[Doubles],
    f: Doubles,
    prefix: int = 1,
    cls: bool = True,
) -> None:
    """The coupled map, the two that it is made of, and every block's own."""
    coupled = reference.attention.tscam(matrices, f, prefix, cls)
    rows = [
        reference.attention.attention_to_patches(m, prefix, (f.shape[0], f.shape[1]), cls)
        for m in matrices
    ]
    assert_same(found.fused.values[b], coupled)
    assert_same(found.fused.shown[b], minmax(coupled))
    parts = {part.name: part.values[b] for part in found.parts}
    assert_same(parts["attention"], sum(rows, np.zeros(f.shape)))
    assert_same(parts["semantic"], f)
    for maps, row in zip(found.layers, rows, strict=True):
        assert_same(maps.values[b], row)


WIDTH, HEADS_OF_TINY, DEPTH, K = 192, 3, 12, 7


# Attention far from even, and tokens that stay apart through twelve blocks of it.
GAINS = {"patch_embed.proj.weight": 3.0, "attn.qkv.weight": 1.5, "attn.proj": 0.3}


def official(grid: int) -> dict[str, Tensor]:
    """Random weights under the names and shapes of the official deit_tiny TS-CAM."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + grid * grid, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
        "head.weight": (K, WIDTH, 3, 3),
        "head.bias": (K,),
    }
    norms = ["norm", *(f"blocks.{n}.norm{i}" for n in range(DEPTH) for i in (1, 2))]
    shapes |= {f"{name}.{kind}": (WIDTH,) for name in norms for kind in ("weight", "bias")}
    linears = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for n in range(DEPTH):
        for name, (rows, cols) in linears.items():
            shapes[f"blocks.{n}.{name}.weight"] = (rows * WIDTH, cols * WIDTH)
            shapes[f"blocks.{n}.{name}.bias"] = (rows * WIDTH,)
    generator = torch.Generator().manual_seed(grid)
    weights = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    for key, value in weights.items():
        value *= 0.3 if value.ndim in (1, 3) else value[0].numel() ** -0.5
        value *= next((gain for part, gain in GAINS.items() if part in key), 1.0)
        value += 1 if "norm" in key and key.endswith("weight") else 0
    return weights


def read_plainly(w: dict[str, Tensor], image: Tensor) -> tuple[list[Doubles], Doubles]:
    """The official network in double precision: every attention matrix, and F (K, g, g)."""
    w = {key: value.double() for key, value in w.items()}
    functional = nn.functional

    def norm(x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    weight, bias = w["patch_embed.proj.weight"], w["patch_embed.proj.bias"]
    patches = functional.conv2d(image[None].double(), weight, bias, stride=16)[0]
    grid = patches.shape[1]
    x = torch.cat([w["cls_token"][0], patches.flatten(1).T]) + w["pos_embed"][0]
    matrices = []
    for n in range(DEPTH):
        q, k, v = dense(norm(x, f"blocks.{n}.norm1"), f"blocks.{n}.attn.qkv").chunk(3, dim=1)
        size = WIDTH // HEADS_OF_TINY
        heads_of = [slice(h * size, (h + 1) * size) for h in range(HEADS_OF_TINY)]
        shares = [(q[:, s] @ k[:, s].T * size**-0.5).softmax(dim=1) for s in heads_of]
        mixed = torch.cat([a @ v[:, s] for a, s in zip(shares, heads_of, strict=True)], dim=1)
        x = x + dense(mixed, f"blocks.{n}.attn.proj")
        hidden = functional.gelu(dense(norm(x, f"blocks.{n}.norm2"), f"blocks.{n}.mlp.fc1"))
        x = x + dense(hidden, f"blocks.{n}.mlp.fc2")
        matrices.append(doubles(torch.stack(shares)))
    last = norm(x, "norm")[1:].T.reshape(1, WIDTH, grid, grid)
    return matrices, doubles(
        functional.conv2d(last, w["head.weight"], w["head.bias"], padding=1)[0]
    )


@pytest.mark.parametrize("side", [224, 384])
def test_tscam_from_an_official_checkpoint(side: int, tmp_path: Path) -> None:
    weights = official(side // 16)
    assert len(weights) == 152
    path = tmp_path / "model_best.pth"
    state = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 3, "state_dict": state, "best_map": 0.5}, path)
    model = load_model(str(path), device="cpu")
    assert model.input_size == (side, side)
    inputs = photographs(model.input_size, 2)
    targets = [6, 3]
    found = found_by(model, "tscam", inputs, targets)
    with torch.no_grad():
        logits = model.network(inputs)
    for b, target in enumerate(targets):
        matrices, f = read_plainly(weights, inputs[b])
        assert_same(logits[b], f.mean(axis=(1, 2)))
        assert_tscam(found, b, matrices, f[target])
        # Both signs, as in trained networks: a relu would show.
        assert f[target].min() < 0 < f[target].max()


BATCHED = {
    "gradcam": ["resnet", "efficientnet", "convnext", "vgg", "swin", "vit", "deit, distilled"],
    "layercam": ["resnet", "efficientnet", "convnext", "swin", "vit", "deit, distilled"],
    "cam": ["resnet", "efficientnet", "convnext", "swin", "vit, no CLS but a register"],
    "tscam": ["vit", "vit, relative positions", "deit, distilled"],
}


@pytest.mark.parametrize(("method", "key"), [(m, key) for m in BATCHED for key in BATCHED[m]])
def test_a_batch_of_different_classes_equals_its_singles(method: str, key: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size)
    together = found_by(model, method, inputs)
    largest = together.fused.values.abs().max()
    assert largest > 0
    for b, target in enumerate(CLASSES):
        alone = found_by(model, method, inputs[b : b + 1], [target])
        assert (together.fused.values[b] - alone.fused.values[0]).abs().max() <= 1e-5 * largest
        assert abs(together.target_scores.scores[b] - alone.target_scores.scores[0]) < 1e-5


def test_the_mean_gradient_of_a_token_says_nothing_after_a_block() -> None:
    """A LayerNorm reads the output of each block: the gradient sums to 0 over the channels.

    So the formula in `camcli methods gradcam` that is not Grad-CAM gives no map there.
    """
    model = model_of("vit")
    names = ["blocks.3", "blocks.3.norm1"]
    _, (after, inside) = recorded(model.network, names, photographs(model.input_size)[0], 1)
    for gradient, bound in ((after, 1e-5), (inside, np.inf)):
        share = gradient[0].sum(dim=1).abs() / gradient[0].abs().sum(dim=1)
        assert share.max() < bound
    assert share.max() > 0.01  # at the input of the attention it does not vanish
