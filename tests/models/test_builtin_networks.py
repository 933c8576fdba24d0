"""camcli's own definitions of the built-in networks against timm's: equal to the last bit."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
from conftest import noise
from timm.data.config import resolve_data_config
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.introspection.heads import ConvHead
from camcli.models.introspection.hooks import observe_all_modules
from camcli.models.network_copy import freeze_network
from camcli.models.zoo.builtin_names import (
    BUILTIN_CNN,
    BUILTIN_NAMES,
    BUILTIN_TSCAM,
    count_builtin_blocks,
)
from camcli.models.zoo.builtin_networks import CnnFeatures, load_builtin_cnn
from camcli.models.zoo.libraries.builtin import LIBRARY

SIZES = {BUILTIN_CNN: ((224, 224), (320, 320), (160, 160), (97, 130))}
CPU = torch.device("cpu")


def create_timm_cnn(**options: Any) -> nn.Module:
    network: nn.Module = timm.create_model(BUILTIN_CNN, **options)
    return network


def create_timm_vit(name: str, depth: int) -> nn.Module:
    """timm's transformer, as camcli built it before it had a definition of its own."""
    backbone = CnnFeatures(create_timm_cnn()).eval()
    network = VisionTransformer(
        img_size=224,
        patch_size=1,
        embed_dim=192,
        depth=depth,
        num_heads=3,
        embed_layer=partial(HybridEmbed, backbone=backbone),
    )
    if name == BUILTIN_TSCAM:
        network.reset_classifier(0, global_pool="")
        network.head = ConvHead(192, 1000, (14, 14), 1)  # type: ignore[assignment]
    return network


@pytest.fixture(scope="module", params=BUILTIN_NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[str, nn.Module, nn.Module]:
    """A name, camcli's network and timm's with the same weights."""
    name: str = request.param
    own = LIBRARY.create_pretrained(name, None)
    is_cnn = name == BUILTIN_CNN
    theirs = create_timm_cnn() if is_cnn else create_timm_vit(name, count_builtin_blocks())
    theirs.load_state_dict(own.state_dict())
    return name, own, theirs


def list_inputs(name: str) -> list[Tensor]:
    images = [noise(n, size) for size in SIZES.get(name, ((224, 224),)) for n in (1, 3)]
    return [*images, *(image.to(memory_format=torch.channels_last) for image in images)]


def run(network: nn.Module, image: Tensor) -> list[Tensor]:
    """The logits, the gradient of one of them by the image, and the output of every module."""
    seen: list[Tensor] = []
    source = image.detach().clone(memory_format=torch.preserve_format).requires_grad_()

    def record(_name: str, output: Any) -> None:
        seen.append(output.detach().clone())

    with observe_all_modules(network, record):
        logits = network(source * 1)
    (gradient,) = torch.autograd.grad(logits[:, 285].sum(), source)
    return [logits.detach(), gradient, *seen]


def assert_equal(own: nn.Module, theirs: nn.Module, image: Tensor) -> None:
    ours, others = run(own, image), run(theirs, image)
    assert len(ours) == len(others)
    for one, other in zip(ours, others, strict=True):
        assert one.stride() == other.stride()
        assert torch.equal(one, other)


def test_weights_and_modules_are_those_of_timm(pair: tuple[str, nn.Module, nn.Module]) -> None:
    _, own, theirs = pair
    ours, others = own.state_dict(), theirs.state_dict()
    assert [(k, v.shape, v.dtype) for k, v in ours.items()] == [
        (k, v.shape, v.dtype) for k, v in others.items()
    ]
    assert not any(v.is_meta for v in (*own.parameters(), *own.buffers()))
    assert [n for n, _ in own.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in own.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    listed = [
        [entry["module"] for entry in network.feature_info]  # type: ignore[union-attr]
        for network in (own, theirs)
    ]
    assert listed[0] == listed[1]


def test_every_value_is_that_of_timm(pair: tuple[str, nn.Module, nn.Module]) -> None:
    name, own, theirs = pair
    for image in list_inputs(name):
        for network in (own, theirs):
            network.eval()
        assert_equal(own, theirs, image)


def test_they_are_equal_as_camcli_runs_them(pair: tuple[str, nn.Module, nn.Module]) -> None:
    """In channels last, and with attention that shows its matrices."""
    name, own, theirs = pair
    for network in (own, theirs):
        freeze_network(network, CPU)
    attention = [m for n in (own, theirs) for m in n.modules() if hasattr(m, "fused_attn")]
    assert len(attention) == (0 if name == BUILTIN_CNN else 8)
    with disable_fused_attention(attention):
        for image in list_inputs(name):
            assert_equal(own, theirs, image)


@pytest.mark.parametrize("pooling", ["", "avg"])
def test_a_headless_cnn_is_that_of_timm(pooling: str) -> None:
    networks: list[Any] = [load_builtin_cnn(), create_timm_cnn()]
    networks[1].load_state_dict(networks[0].state_dict())
    image = noise(2, (96, 96))
    outputs = []
    for network in networks:
        network.eval().reset_classifier(0, global_pool=pooling)
        with torch.no_grad():
            outputs.append(network(image))
        assert network.get_classifier() is network.classifier
    assert torch.equal(*outputs)
    assert outputs[0].ndim == (2 if pooling else 4)


@pytest.mark.parametrize("options", [{}, {"num_classes": 7}, {"num_classes": 0}, {"in_chans": 5}])
def test_a_cnn_for_weights_from_a_file(options: dict[str, int]) -> None:
    own, theirs = LIBRARY.create(BUILTIN_CNN, None, **options), create_timm_cnn(**options)
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (own, theirs)]
    assert shapes[0] == shapes[1]


def test_training_mode_is_that_of_timm() -> None:
    """`camcli train` with --train all reads statistics of the batch, and changes them."""
    networks: list[nn.Module] = [load_builtin_cnn(), create_timm_cnn()]
    networks[1].load_state_dict(networks[0].state_dict())
    logits = [network.train()(noise(4, (96, 96))) for network in networks]
    assert torch.equal(*logits)
    for one, other in zip(*(n.state_dict().values() for n in networks), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [None, (320, 320)])
def test_the_transform_is_that_of_timm(size: tuple[int, int] | None) -> None:
    found = LIBRARY.find_transform(BUILTIN_CNN, size)
    wanted = resolve_data_config(model=create_timm_cnn())
    assert found.size == (size or wanted["input_size"][1:])
    assert (found.mean, found.std) == (wanted["mean"], wanted["std"])
    assert (found.interpolation, found.crop_pct) == (wanted["interpolation"], wanted["crop_pct"])
