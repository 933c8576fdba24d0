"""Small networks of every kind, and hooks of the tests' own that record their layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from conftest import PHOTOS, lively, small
from PIL import Image
from reference.maps import Doubles
from torch import Tensor, nn

from camcli.core.types import Transform
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.methods.registry import find_method
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.model import Model, wrap_network
from camcli.models.zoo.mctformer import MCTformer, Version

SWIN: dict[str, Any] = {
    "window_size": 4,
    "depths": (2, 2, 2, 2),
    "embed_dim": 32,
    "num_heads": (1, 2, 4, 8),
}
# Name, height, width, options. The sides differ where the network allows it, so that a transposed
# map fails the test.
NETWORKS: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "resnet": ("test_resnet", 96, 128, {}),
    "efficientnet": ("test_efficientnet", 96, 128, {}),
    "convnext": ("convnext_atto", 96, 128, {}),
    "vgg": ("vgg11", 224, 224, {"mlp_ratio": 0.02}),  # most of its weights are in one layer
    "swin": ("swin_tiny_patch4_window7_224", 128, 96, SWIN),
    "vit": ("test_vit", 96, 128, {}),
    "vit, queries and keys normed": ("test_vit", 96, 128, {"qk_norm": True}),
    "vit, patches pooled": ("test_vit", 96, 128, {"global_pool": "avg", "fc_norm": False}),
    "vit, no CLS but a register": ("test_vit2", 96, 128, {}),
    "vit, relative positions": ("test_vit_relpos", 96, 128, {}),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", 224, 224, {}),
    "vit, 160x224": ("vit_tiny_patch16_224", 160, 224, {}),
}


@cache
def class_token_model(version: Version) -> Model:
    """A small MCTformer of this version, of 10 classes."""
    network = lively(MCTformer(10, version, width=128, heads=2, depth=4, grid=6))
    name = f"mctformer_{version}"
    return wrap_network(name, network, Transform((96, 128)), head="sigmoid")


CLASSES = (1, 8, 4)  # a different one for each photograph


def model_of(key: str) -> Model:
    """The network of that name in NETWORKS."""
    name, height, width, options = NETWORKS[key]
    return small(name, height, width, **options)


@cache
def photographs(size: tuple[int, int], count: int = 3) -> Tensor:
    """The sample images as inputs in [-1, 1]: (count, 3, height, width)."""
    height, width = size
    opened = (Image.open(path).resize((width, height)) for path in PHOTOS[:count])
    values = np.stack([np.asarray(image, dtype=np.float32) for image in opened])
    return torch.from_numpy((values / 127.5 - 1).transpose(0, 3, 1, 2).copy())


def found_by(
    model: Model,
    method: str,
    inputs: Tensor,
    classes: Sequence[int] = CLASSES,
    spec: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> BatchExplanation:
    """camcli's maps of one method, each image for its own class; `spec` chooses the layers."""
    targets = torch.tensor(classes)[:, None]
    requests = plan_requests(model, [find_method(method)], spec, options={method: options or {}})
    return explain_batch(model, inputs, requests, lambda _: targets)[0][0]


@contextmanager
def outputs_of(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the named layers, filled in by forward passes inside the context."""
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: kept.__setitem__(name, output)

    hooks = [network.get_submodule(n).register_forward_hook(keep(n)) for n in names]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def recorded(
    network: nn.Module, names: Sequence[str], image: Tensor, target: int
) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of layers for one image, and the gradients of one logit by them.

    The input requires a gradient, since the weights are frozen.
    """
    with outputs_of(network, names) as kept:
        logits = network(image[None].clone().requires_grad_())
    tensors = [kept[name] for name in names]
    return tensors, list(torch.autograd.grad(logits[0, target], tensors))


Read = Callable[[Tensor], Doubles]  # from a layer's output to activations (C, H, W)


def doubles(tensor: Tensor) -> Doubles:
    return tensor.detach().numpy().astype(np.float64)


def channels_first(output: Tensor) -> Doubles:
    return doubles(output[0])


def channels_last(output: Tensor) -> Doubles:
    return doubles(output[0]).transpose(2, 0, 1)


def tokens(prefix: int, rows: int, cols: int) -> Read:
    """Reads the patch tokens of an output (1, prefix + rows * cols, C)."""

    def read(output: Tensor) -> Doubles:
        flat = doubles(output[0])
        assert len(flat) == prefix + rows * cols
        lines = [[flat[prefix + i * cols + j] for j in range(cols)] for i in range(rows)]
        return np.array(lines).transpose(2, 0, 1)

    return read


def assert_same(found: Tensor, expected: Doubles, tolerance: float = 1e-4) -> None:
    """Equal up to a share of the largest value, because camcli computes in single precision."""
    assert found.shape == expected.shape
    largest = np.abs(expected).max()
    assert np.abs(doubles(found) - expected).max() <= tolerance * largest


QUERIES = {  # prefix tokens, and those that the classifier reads
    "vit": (1, [0]),
    "vit, queries and keys normed": (1, [0]),
    "vit, patches pooled": (1, list(range(1, 49))),
    "vit, no CLS but a register": (1, list(range(1, 49))),
    "vit, relative positions": (0, list(range(48))),
    "deit, distilled": (2, [0, 1]),
    "vit, 160x224": (1, [0]),
}


def attended(model: Model, image: Tensor, target: int) -> tuple[list[Doubles], list[Doubles]]:
    """Each block's attention and its gradient, by way of the input, in plain steps."""
    network: Any = model.network
    names = [f"blocks.{n}.attn.attn_drop" for n in range(len(network.blocks))]
    with disable_fused_attention([block.attn for block in network.blocks]):
        matrices, gradients = recorded(network, names, image, target)
    return [doubles(m[0]) for m in matrices], [doubles(g[0]) for g in gradients]


# Network, layer, and how to read the layer's output.
LAYERS: list[tuple[str, str, Read]] = [
    ("resnet", "layer4", channels_first),
    ("resnet", "layer2", channels_first),
    ("efficientnet", "bn2", channels_first),
    ("efficientnet", "blocks.2", channels_first),
    ("vgg", "features.20", channels_first),
    ("convnext", "stages.3", channels_first),
    ("swin", "norm", channels_last),
    ("swin", "layers.1", channels_last),
    ("vit", "blocks.5.norm1", tokens(1, 6, 8)),
    ("vit, no CLS but a register", "blocks.7", tokens(1, 6, 8)),
    ("vit, relative positions", "blocks.4", tokens(0, 6, 8)),
    ("deit, distilled", "blocks.11.norm1", tokens(2, 14, 14)),
    ("vit, 160x224", "blocks.10", tokens(1, 10, 14)),
]


# Options that make methods with many passes quick.
FEW = {"samples": 2, "steps": 2, "masks": 20, "channels": 6, "window": 48, "stride": 48}
FEW |= {"groups": 4}


def top(logits: Tensor) -> Tensor:
    """The two classes with the largest logits of each image."""
    return logits.topk(2, dim=1).indices


def hooks(network: nn.Module) -> Iterator[object]:
    """All hooks that are on the network now."""
    for module in network.modules():
        yield from module._forward_hooks.values()
        yield from module._forward_pre_hooks.values()
        yield from module._backward_hooks.values()
