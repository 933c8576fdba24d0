"""The smallest network of every timm module: what camcli chooses by itself is right.

Nothing is asked of it but a name. What it chooses is held against what is recorded here by hooks
of torch's own, and computed here by hand: see `check`. `pytest -m zoo` takes all 98 modules; a
dozen of small hard ones are always taken.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import reference
import timm
import torch
from conftest import lively, noise
from reference.maps import Doubles
from small_networks import found_by
from timm.models import _registry
from torch import Tensor, nn

from camcli.core.errors import MethodError
from camcli.core.types import Layer, Transform
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.methods.registry import find_method
from camcli.models import model as models
from camcli.models.introspection.heads import ClassifierHead
from camcli.models.introspection.layouts import output_to_map
from camcli.models.model import Model

Size = tuple[int, int]
Record = Callable[[str, object], None]

# By timm's module, its smallest network, and the input if it cannot be `USUAL`: fixed squares,
# windows that must fit, convolutions that pad nothing, and less where it takes longest.
TIMM = "1.0.31"
USUAL = (128, 192)
ZOO: dict[str, tuple[str, Size | None]] = {
    "beit": ("beit_base_patch16_224", None),
    "byoanet": ("halonet_h1", (256, 256)),
    "byobnet": ("mobileone_s1", None),
    "cait": ("cait_xxs24_224", None),
    "coat": ("coat_tiny", None),
    "convit": ("convit_tiny", (224, 224)),
    "convmixer": ("convmixer_768_32", None),
    "convnext": ("convnext_zepto_rms", None),
    "cpubone": ("cpubone_nano", None),
    "crossvit": ("crossvit_tiny_240", (240, 240)),
    "csatv2": ("csatv2", None),
    "cspnet": ("cs3darknet_focus_s", None),
    "cspnext": ("cspnext_tiny", None),
    "davit": ("davit_tiny", None),
    "deepseek_vit": ("deepseek_vit_412m", (84, 112)),
    "deit": ("deit_tiny_patch16_224", None),
    "densenet": ("densenet121", None),
    "dla": ("dla46x_c", None),
    "dpn": ("dpn48b", None),
    "edgenext": ("edgenext_xx_small", None),
    "efficientformer": ("efficientformer_l1", (224, 224)),
    "efficientformer_v2": ("efficientformerv2_s0", None),
    "efficientnet": ("mobilenetv2_035", None),
    "efficientvim": ("efficientvim_m1", (192, 256)),
    "efficientvit_mit": ("efficientvit_b0", None),
    "efficientvit_msra": ("efficientvit_m0", None),
    "eva": ("vit_tiny_patch16_dinov3_qkvb", None),
    "fasternet": ("fasternet_t0", None),
    "fastvit": ("fastvit_t8", None),
    "focalnet": ("focalnet_tiny_srf", None),
    "gcvit": ("gcvit_xxtiny", None),
    "gemma4_vit": ("gemma4_vit_167m", (96, 144)),
    "ghostnet": ("ghostnet_050", None),
    "hardcorenas": ("hardcorenas_b", None),
    "hgnet": ("hgnetv2_b0", None),
    "hiera": ("hiera_tiny_224", None),
    "hieradet_sam2": ("sam2_hiera_tiny", None),
    "hrnet": ("hrnet_w18_small", None),
    "iformer": ("iformer_t", None),
    "inception_next": ("inception_next_atto", None),
    "inception_resnet_v2": ("inception_resnet_v2", (192, 256)),
    "inception_v3": ("inception_v3", (192, 256)),
    "inception_v4": ("inception_v4", (192, 256)),
    "lcnetv2": ("lcnetv2_small", None),
    "levit": ("levit_128s", None),
    "lowformer": ("lowformer_b0", None),
    "mambaout": ("mambaout_femto", None),
    "maxxvit": ("maxvit_pico_rw_256", None),
    "metaformer": ("poolformerv2_s12", None),
    "mlp_mixer": ("gmlp_ti16_224", None),
    "mobilenetv3": ("mobilenetv3_small_050", None),
    "mobilenetv5": ("mobilenetv5_base", None),
    "mobilevit": ("mobilevit_xxs", None),
    "mvitv2": ("mvitv2_tiny", (224, 224)),
    "naflexvit": ("naflexvit_base_patch16_parfac_gap", (96, 128)),
    "nasnet": ("nasnetalarge", None),
    "nest": ("nest_tiny", (224, 224)),
    "nextvit": ("nextvit_small", None),
    "nfnet": ("nf_regnet_b0", None),
    "pit": ("pit_ti_224", None),
    "pnasnet": ("pnasnet5large", (192, 256)),
    "pvt_v2": ("pvt_v2_b0", None),
    "qwen3_vit": ("qwen3_vit_88m", (96, 128)),
    "rdnet": ("rdnet_tiny", None),
    "regnet": ("regnetx_002", None),
    "repghost": ("repghostnet_050", None),
    "repvit": ("repvit_m1", None),
    "res2net": ("res2next50", None),
    "resnest": ("resnest14d", None),
    "resnet": ("resnet10t", None),
    "resnetv2": ("resnetv2_18", None),
    "rexnet": ("rexnet_100", None),
    "selecsls": ("selecsls42", None),
    "senet": ("legacy_seresnet18", None),
    "sequencer": ("sequencer2d_s", None),
    "shvit": ("shvit_s1", None),
    "sknet": ("skresnet18", None),
    "starnet": ("starnet_s050", None),
    "swiftformer": ("swiftformer_xs", None),
    "swin_transformer": ("swin_tiny_patch4_window7_224", None),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", None),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", None),
    "tiny_vit": ("tiny_vit_5m_224", None),
    "tnt": ("tnt_s_legacy_patch16_224", None),
    "tresnet": ("tresnet_m", None),
    "twins": ("twins_svt_small", None),
    "vgg": ("vgg11", None),
    "visformer": ("visformer_tiny", None),
    "vision_transformer": ("vit_tiny_patch16_224", None),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", None),
    "vision_transformer_relpos": ("vit_srelpos_small_patch16_224", None),
    "vision_transformer_sam": ("samvit_base_patch16_224", (224, 224)),
    "vitamin": ("vitamin_small_224", None),
    "volo": ("volo_d1_224", None),
    "vovnet": ("ese_vovnet19b_slim_dw", None),
    "xception": ("legacy_xception", None),
    "xception_aligned": ("xception41p", None),
    "xcit": ("xcit_nano_12_p8_224", None),
}
SAMPLE = (
    "cait",
    "coat",
    "convit",
    "crossvit",
    "efficientformer",
    "hiera",
    "levit",
    "mobilevit",
    "mvitv2",
    "pit",
    "tnt",
    "vision_transformer",
    "xcit",
)

# Weights are random. Mostly `lively`, with which attention is sharp and every block counts. Some
# networks then see all places at once: gates and bottlenecks that start at one let a change
# anywhere be felt everywhere. Those keep the weights that they are made with.
OWN_WEIGHTS = {
    "byoanet",
    "cait",
    "coat",
    "csatv2",
    "cspnext",
    "efficientformer_v2",
    "efficientvim",
    "efficientvit_mit",
    "efficientvit_msra",
    "fastvit",
    "ghostnet",
    "hardcorenas",
    "iformer",
    "mlp_mixer",
    "mobilenetv3",
    "nasnet",
    "nextvit",
    "pnasnet",
    "repghost",
    "shvit",
    "starnet",
    "swiftformer",
    "tresnet",
    "visformer",
    "xception",
    "xception_aligned",
}
# And those whose own weights let the image fade get batch norms that fit what they are given.
SETTLED = {"levit", "maxxvit"}

# Layers in which no movement is seen, for random attention mixes all places: LeViT shrinks its map
# by attention, with nothing of the map before added to what it finds, and in Visformer's last
# stage attention drowns what it is added to. Maps that are computed by hand stand for them.
MIXED: dict[str, tuple[str, ...]] = {"levit": ("stages.2",), "visformer": ("stage3", "norm")}

ROLLOUT = {
    "beit",
    "convit",
    "deepseek_vit",
    "deit",
    "eva",
    "gemma4_vit",
    "naflexvit",
    "qwen3_vit",
    "tnt",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "vitamin",
}
TSCAM = {
    "beit",
    "cait",
    "convit",
    "deepseek_vit",
    "deit",
    "eva",
    "gemma4_vit",
    "naflexvit",
    "qwen3_vit",
    "tnt",
    "vision_transformer",
    "vision_transformer_hybrid",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "vitamin",
    "xcit",
}
# Attention inside a patch, and attention that pools what the blocks have made.
BESIDE = ("attn_in", "attn_pool")

needs_version = pytest.mark.skipif(
    timm.__version__ != TIMM, reason=f"the table is of timm {TIMM}, this is {timm.__version__}"
)


@needs_version
def test_the_table_has_every_module_of_timm() -> None:
    known = {_registry._model_to_module[name] for name in timm.list_models()}
    assert set(ZOO) == known
    assert all(_registry._model_to_module[name] == module for module, (name, _) in ZOO.items())


@pytest.mark.parametrize("module", SAMPLE)
def test_what_is_chosen_of_a_sample_is_right(module: str) -> None:
    check(module, lambda _name, _value: None)


@needs_version
@pytest.mark.zoo
@pytest.mark.parametrize("module", ZOO)
def test_what_is_chosen_of_every_module_is_right(module: str, record_property: Record) -> None:
    check(module, record_property)


def check(module: str, record: Record) -> None:
    """All that is asked of one network, which is built once and let go of."""
    model = built(module)
    before = traces(model.network)
    images = noise(2, model.input_size)
    layer = find_model_default_layer(model)
    classes, recorded = check_gradients(model, layer, images)
    gradcam, layercam = check_maps(model, layer, images, classes, recorded)
    check_moves(model, layer, module)
    rollout = check_rollout(model, layer, images, module in ROLLOUT)
    tscam = check_tscam(model, layer, images, module in TSCAM)
    record("zoo", [module, gradcam, layercam, rollout, tscam])
    assert traces(model.network) == before
    del model
    gc.collect()  # hooks close circles, and some of these networks are large


def built(module: str) -> Model:
    name, size = ZOO[module][0], ZOO[module][1] or USUAL
    torch.manual_seed(0)
    config = timm.get_pretrained_cfg(name)
    fixed: dict[str, Any] = {"img_size": size} if config and config.fixed_input_size else {}
    network = timm.create_model(name, num_classes=10, **fixed)
    if module in SETTLED:
        settle(alive(network), size)
    elif module in OWN_WEIGHTS:
        alive(network)
    else:
        lively(network)
    return models.wrap_network(name, network, Transform(size))


def alive(network: nn.Module) -> nn.Module:
    """The weights that it is made with, but for matrices of zeros: classifiers, mostly."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            parameter.data.normal_(0, 0.02, generator=generator)
    return network


def settle(network: nn.Module, size: Size) -> None:
    """Batch norms with the mean and variance of what noise brings them."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
            module.momentum = None  # the mean of all batches, of which there is one
    with torch.no_grad():
        network(noise(4, size, seed=3))


def traces(network: nn.Module) -> list[tuple[object, ...]]:
    """Whatever camcli could leave behind in a network."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    gradients = [(n, p.grad, p.requires_grad) for n, p in network.named_parameters()]
    modules = [
        (n, "forward" in vars(m), getattr(m, "fused_attn", None), *(len(vars(m)[h]) for h in hooks))
        for n, m in network.named_modules()
    ]
    return [*gradients, *modules]


class Kept:
    """The values of a layer, and in time the gradient of what is differentiated."""

    def __init__(self) -> None:
        self.values: Tensor | None = None
        self.gradient: Tensor | None = None

    def keep(self, output: Tensor) -> None:
        self.values = output.detach().clone()  # what follows may work in place
        self.gradient = None
        if output.requires_grad:
            cast(Any, output).register_hook(self.differentiated)

    def differentiated(self, gradient: Tensor) -> None:
        self.gradient = gradient.detach().clone()


@contextmanager
def kept(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Kept]]:
    """By camcli's names of layers, of which `name[1]` is a part: what its module hands on."""
    found = {name: Kept() for name in names}

    def hook(name: str, place: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[name].keep(output[int(place.rstrip("]"))] if place else output)

        return keep

    hooks = []
    for name in names:
        module, _, place = name.partition("[")
        hooks.append(network.get_submodule(module).register_forward_hook(hook(name, place)))
    try:
        yield found
    finally:
        for each in hooks:
            each.remove()


def placed(values: Tensor, layer: Layer) -> Doubles:
    """A layer's output as maps (B,C,H,W), a token at a time."""
    assert list(layer.token_order) == sorted(layer.token_order), "the default layer lies row by row"
    numbers = values.numpy().astype(np.float64)
    if layer.layout == "NCHW":
        return numbers
    if layer.layout == "NHWC":
        return np.moveaxis(numbers, 3, 1)
    rows, cols = layer.grid
    assert numbers.shape[1] == layer.prefix_token_count + rows * cols
    maps = np.zeros((len(numbers), numbers.shape[2], rows, cols))
    for i, j in np.ndindex(rows, cols):
        maps[:, :, i, j] = numbers[:, layer.prefix_token_count + i * cols + j]
    return maps


Recorded = Callable[[Sequence[int]], tuple[Doubles, Doubles]]


def check_gradients(model: Model, layer: Layer, images: Tensor) -> tuple[list[int], Recorded]:
    """The predicted class depends on many places of a grid that has the input's aspect."""
    with torch.no_grad():
        classes = model.network(images).argmax(dim=1).tolist()

    def recorded(wanted: Sequence[int]) -> tuple[Doubles, Doubles]:
        source = images.clone().requires_grad_()
        with kept(model.network, [layer.name]) as found:
            logits = model.network(source)
            torch.autograd.grad(logits[range(len(wanted)), list(wanted)].sum(), source)
        one = found[layer.name]
        assert one.values is not None
        assert one.gradient is not None, "the class does not depend on the layer"
        return placed(one.values, layer), placed(one.gradient, layer)

    activations, gradients = recorded(classes)
    (height, width), (rows, cols) = model.input_size, layer.grid
    assert activations.shape == (len(images), layer.channels, rows, cols)
    assert abs(rows * width - cols * height) < max(height, width), "the grid is not the input's"
    assert np.isfinite(gradients).all()
    assert ((gradients != 0).any(axis=1).sum(axis=(1, 2)) > 1).all(), "one place decides, or none"
    return classes, recorded


def check_maps(
    model: Model, layer: Layer, images: Tensor, classes: list[int], recorded: Recorded
) -> tuple[str, str]:
    """Grad-CAM and LayerCAM by hand, of the first class at which something speaks for each."""
    requests = plan_requests(model, [find_method("gradcam"), find_method("layercam")])
    assert all(request.layers == (layer,) for request in requests)
    for step in range(10):
        wanted = [(each + step) % 10 for each in classes]
        targets = torch.tensor(wanted)[:, None]
        (gradcam,), (layercam,) = explain_batch(
            model, images, requests, partial(same_for_all, targets)
        )
        activations, gradients = recorded(wanted)
        weights = gradients.mean(axis=(2, 3), keepdims=True)
        assert_close(gradcam.fused.values, relu((weights * activations).sum(axis=1)))
        assert_close(layercam.fused.values, relu((relu(gradients) * activations).sum(axis=1)))
        if {*gradcam.fused.status_names, *layercam.fused.status_names} == {"ok"}:
            return "ok", "ok"
    raise AssertionError(
        f"no class has maps: {gradcam.fused.status_names} {layercam.fused.status_names}"
    )


def same_for_all(targets: Tensor, _logits: Tensor) -> Tensor:
    return targets


def relu(values: Doubles) -> Doubles:
    return np.maximum(values, 0)


def assert_close(found: Tensor, expected: Doubles, tolerance: float = 1e-4) -> None:
    """Equal, each map as a share of its largest value."""
    assert found.shape == expected.shape
    for one, other in zip(found.detach().numpy().astype(np.float64), expected, strict=True):
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


def check_moves(model: Model, layer: Layer, module: str) -> None:
    """Where evidence moves, what layers make of it moves too, in the layout camcli gives them."""
    numbered = [la for la in model.layers if la.stage is not None or la.block is not None]
    layers = {la.name: la for la in (layer, *numbered) if la.name not in MIXED.get(module, ())}
    with torch.no_grad(), kept(model.network, list(layers)) as found:
        model.network(evidence(model.input_size))
    for name, each in layers.items():
        values = found[name].values
        assert values is not None
        moves = moved(output_to_map(values, each))
        assert min(moves) > LEAST, f"{name}: {moves}"


LEAST = 0.02  # of the map's side; the evidence itself moves by half of it


def evidence(size: Size) -> Tensor:
    """A plain background, and noise on it: top left, top right, bottom left, bottom right."""
    height, width = size[0] // 4, size[1] // 4
    images = torch.zeros(5, 3, *size)
    patch = 3 * noise(1, (height, width), seed=0)[0]
    for number, (i, j) in enumerate(np.ndindex(2, 2), start=1):
        top, left = size[0] * (1 + 4 * i) // 8, size[1] * (1 + 4 * j) // 8
        images[number, :, top : top + height, left : left + width] = patch
    return images


def moved(maps: Tensor) -> list[float]:
    """How far the centre of the change goes right, twice, and down, twice, as shares of the map."""
    change = (maps[1:] - maps[:1]).double().square().sum(dim=1)
    change = change / change.sum(dim=(1, 2), keepdim=True)
    rows, cols = change.shape[1:]
    across = (change.sum(dim=1) @ torch.arange(cols).double() / cols).tolist()
    down = (change.sum(dim=2) @ torch.arange(rows).double() / rows).tolist()
    return [across[1] - across[0], across[3] - across[2], down[2] - down[0], down[3] - down[1]]


def check_rollout(model: Model, layer: Layer, images: Tensor, expected: bool) -> str:
    """All attention multiplied, read where the image is summed up: at CLS, or else the patches."""
    if not expected:
        return refused(model, "rollout")
    found = found_by(model, "rollout", images, [0] * len(images)).fused
    assert found.status_names == ["ok"] * len(images)
    matrices = attention(model.network, images, layer)
    tokens = max(matrix.shape[3] for matrix in matrices)
    prefix = tokens - layer.grid[0] * layer.grid[1]
    queries = [0] if has_cls(model.network) else range(prefix, tokens)
    maps = []
    for image in range(len(images)):
        filled = [widened(matrix[image], tokens) for matrix in matrices]
        rolled = reference.attention.rollout(filled)
        maps.append(reference.attention.read(rolled, queries, prefix, layer.grid))
    assert_close(found.values, np.stack(maps))
    return "ok"


def has_cls(network: nn.Module) -> bool:
    return getattr(network, "cls_token", None) is not None


def widened(matrix: Doubles, tokens: int) -> Doubles:
    """With tokens that come later, each of which sees itself."""
    missing = tokens - matrix.shape[2]
    whole = np.zeros((len(matrix), tokens, tokens))
    whole[:] = np.eye(tokens)
    whole[:, missing:, missing:] = matrix
    return whole


def attention(network: nn.Module, images: Tensor, layer: Layer) -> list[Doubles]:
    """The matrices (B,heads,queries,N) over all patches, in the order in which they are used."""
    places = layer.grid[0] * layer.grid[1]
    drops = [
        (network.get_submodule(name.rpartition(".")[0]), module)
        for name, module in network.named_modules()
        if name.endswith(".attn_drop") and name.split(".")[-2] not in BESIDE
    ]
    seen: list[Doubles] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        matrix = output.detach().reshape(len(images), -1, *output.shape[-2:])
        if matrix.shape[3] >= places:
            seen.append(matrix.numpy().astype(np.float64))

    hooks = [module.register_forward_hook(keep) for _, module in drops]
    fused = [(cast(Any, each), each.fused_attn) for each, _ in drops if hasattr(each, "fused_attn")]
    for each, _ in fused:
        each.fused_attn = False
    with torch.no_grad():
        network(images)
    for each, was in fused:
        each.fused_attn = was
    for hook in hooks:
        hook.remove()
    return seen


def check_tscam(model: Model, layer: Layer, images: Tensor, expected: bool) -> str:
    """The attention of CLS, of all blocks that have one, times the classifier at every patch."""
    if not expected:
        return refused(model, "tscam")
    (request,) = plan_requests(model, [find_method("tscam")])
    assert request.head is not None
    classes = [3] * len(images)
    found = found_by(model, "tscam", images, classes).fused
    assert found.status_names == ["ok"] * len(images)
    rows = summed_rows(model.network, images, layer)
    assert_close(found.values, rows * semantic(model, request.head, images, classes))
    return "ok"


def summed_rows(network: nn.Module, images: Tensor, layer: Layer) -> Doubles:
    """Of CLS, or without any of all queries, averaged over heads and summed over blocks."""
    places = layer.grid[0] * layer.grid[1]
    total = np.zeros((len(images), places))
    for matrix in attention(network, images, layer):
        prefix = matrix.shape[3] - places
        if prefix or not has_cls(network):
            queries = matrix[:, :, :1] if has_cls(network) else matrix
            total += queries.mean(axis=(1, 2))[:, prefix:]
    return total.reshape(-1, *layer.grid)


def semantic(model: Model, head: ClassifierHead, images: Tensor, classes: Sequence[int]) -> Doubles:
    """Class scores at every patch, of features of which the network's own logits are made."""
    network = cast(Any, model.network)
    classifier = network.get_submodule(network.default_cfg["classifier"])
    weight = classifier.weight.numpy().astype(np.float64)[list(classes)]
    bias = classifier.bias.numpy().astype(np.float64)[list(classes)]
    with torch.no_grad(), kept(model.network, [head.layer.name]) as found:
        logits = model.network(images)[range(len(images)), list(classes)].numpy()
    values = found[head.layer.name].values
    assert values is not None
    features = placed(values, head.layer)
    if head.norm is not None:  # of the mean, and linear in the map once its deviation is known
        pooled = features.mean(axis=(2, 3))
        with_mean = isinstance(head.norm, nn.LayerNorm)
        spread = pooled.var(axis=1) if with_mean else (pooled**2).mean(axis=1)
        deviation = np.sqrt(spread + cast(Any, head.norm).eps)[:, None, None, None]
        features = (features - with_mean * features.mean(axis=1, keepdims=True)) / deviation
        own = {k: p.numpy().astype(np.float64) for k, p in head.norm.named_parameters()}
        features = features * own.get("weight", np.ones(1))[:, None, None]
        features = features + own.get("bias", np.zeros(1))[:, None, None]
    maps: Doubles = np.einsum("bc,bchw->bhw", weight, features) + bias[:, None, None]
    of_cls = None if head.exact else (values[:, 0].numpy() * weight).sum(axis=1) + bias
    read = maps.mean(axis=(1, 2)) if of_cls is None else of_cls
    assert np.allclose(read, logits, rtol=1e-3, atol=1e-4)
    return maps


def refused(model: Model, method: str) -> str:
    """Why a network has no such map, in camcli's words."""
    with pytest.raises(MethodError) as error:
        plan_requests(model, [find_method(method)])
    reason = str(error.value).partition(". Try")[0]
    return reason.rpartition(f"{model.name} has ")[2]


def test_the_docs_have_the_count() -> None:
    page = Path(__file__).parents[2] / "docs" / "models.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    said = f"Of the {len(ZOO)}, **{len(ZOO)} have Grad-CAM and LayerCAM, {len(ROLLOUT)} attention"
    assert f"{said} rollout, {len(TSCAM)} TS-CAM**" in text
